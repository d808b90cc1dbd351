#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod align;
mod bench;
mod checksum;
mod commit;
mod compare;
mod convert;
mod crew;
mod error;
mod forward;
mod measure;
mod offload;
mod options;
mod place;
mod plan;
mod pour;
mod progress;
mod rate;
mod rebase;
mod recode;
mod reorder;
mod runs;
mod salvage;
mod same;
mod source;
mod stop;
mod stream;
mod target_guard;
mod unit;
mod worker;

pub use bench::{BenchOptions, bench};
pub use checksum::{ChecksumOptions, checksum};
pub use commit::{CommitOptions, commit};
pub use compare::{CompareError, CompareOptions, Comparison, Difference, Side, compare};
pub use convert::{ConvertSummary, convert, convert_range};
pub use error::ConvertError;
pub use measure::measure;
pub use options::{ConvertOptions, TargetBacking};
pub use pour::{Inflow, pour};
pub use progress::{Observer, Silent, Warning};
pub use rebase::{NewBacking, RebaseOptions, RebaseSummary, rebase};
pub use stream::{StreamTarget, convert_to_stream};
pub use target_guard::{Leftover, TargetGuard};
