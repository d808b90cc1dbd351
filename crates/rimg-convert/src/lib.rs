#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod chain;
mod compare;
mod convert;
mod crew;
mod error;
mod guard;
mod measure;
mod offload;
mod options;
mod place;
mod plan;
mod progress;
mod rate;
mod recode;
mod reorder;
mod salvage;
mod source;
mod stop;
mod unit;
mod worker;

pub use compare::{CompareError, CompareOptions, Comparison, Difference, Side, compare};
pub use convert::{ConvertSummary, convert};
pub use error::ConvertError;
pub use guard::{Leftover, TargetGuard};
pub use measure::measure;
pub use options::{ConvertOptions, TargetBacking};
pub use progress::{Observer, Silent, Warning};
