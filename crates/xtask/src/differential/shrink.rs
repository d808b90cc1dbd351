//! Making a sequence that differs as short as possible.

use super::pair::{Difference, Outcome, Pair};
use super::step::Step;
use crate::Result;

/// Leaves out every step without which the same kind of difference is still there.
pub(super) fn shrink(
    pair: &Pair,
    steps: Vec<Step>,
    difference: Difference,
) -> Result<(Vec<Step>, Difference)> {
    let mut steps = steps;
    let mut difference = difference;
    steps.truncate(difference.step.saturating_add(1));
    let mut at = steps.len();
    while at > 0 {
        at -= 1;
        let mut fewer = steps.clone();
        fewer.remove(at);
        if let Outcome::Different(found) = pair.run(&fewer, &mut Vec::new())?
            && found.is_like(&difference)
        {
            steps = fewer;
            difference = found;
            steps.truncate(difference.step.saturating_add(1));
            at = at.min(steps.len());
        }
    }
    Ok((steps, difference))
}
