//! How long an evaluation may take: by the processor time of its thread, so that a machine which is busy with others refuses nobody.
//!
//! The engine looks at the wall clock alone. So an evaluation that ran out of it, and did not have the processor meanwhile, begins again
//! with twice the time, until all attempts together had their share or nobody would wait any longer.

use core::time::Duration;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of one answer.
pub const TIME_LIMIT: Duration = Duration::from_millis(250);
/// Longest that an answer may take however little of the processor it gets.
pub const WALL_LIMIT: Duration = Duration::from_secs(10);

/// An evaluation that was cut off.
pub(crate) struct CutOff;

/// Evaluates within these limits: `evaluate` is given the wall time that it may take.
///
/// # Errors
/// [`CutOff`] where it had its processor time, or the wall time is over.
pub(crate) fn within<T>(
    processor: Duration,
    wall: Duration,
    mut evaluate: impl FnMut(Duration) -> Result<T, CutOff>,
) -> Result<T, CutOff> {
    let (began, before, mut may_take) = (Instant::now(), thread_time(), processor);
    loop {
        let attempt = Instant::now();
        let cut_off = match evaluate(may_take) {
            Ok(answer) => return Ok(answer),
            Err(cut_off) => cut_off,
        };
        // What ended before its time was not cut off, whatever it says.
        let was_early = attempt.elapsed() < may_take;
        let (used, left) = (thread_time().saturating_sub(before), wall.saturating_sub(began.elapsed()));
        if was_early || used >= processor || left.is_zero() {
            return Err(cut_off);
        }
        may_take = (2 * may_take).min(left);
    }
}

/// Processor time of this thread so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits without the processor, as on a machine that others keep busy; cut off as the engine cuts off.
    fn waits(needed: Duration, may_take: Duration) -> Result<(), CutOff> {
        std::thread::sleep(needed.min(may_take));
        if needed <= may_take { Ok(()) } else { Err(CutOff) }
    }

    fn computes(needed: Duration, may_take: Duration) -> Result<(), CutOff> {
        let (began, before) = (Instant::now(), thread_time());
        while thread_time().saturating_sub(before) < needed {
            if began.elapsed() > may_take {
                return Err(CutOff);
            }
        }
        Ok(())
    }

    #[test]
    fn who_did_not_have_the_processor_has_more_time_and_who_had_it_has_none() {
        let ms = Duration::from_millis;
        let mut times = Vec::new();
        let done = within(ms(20), ms(5000), |may_take| {
            times.push(may_take);
            waits(ms(70), may_take)
        });
        assert!(done.is_ok());
        assert_eq!(times, [ms(20), ms(40), ms(80)]);
        let began = Instant::now();
        assert!(within(ms(20), ms(100), |may_take| waits(ms(120_000), may_take)).is_err());
        assert!(began.elapsed() < ms(60_000), "the wall clock has the last word");
        let mut attempts = 0;
        let early = within(ms(20), ms(60_000), |_| {
            attempts += 1;
            Err::<(), _>(CutOff)
        });
        assert!(early.is_err() && attempts == 1, "who only says that it was cut off does not begin again");
        // Of all attempts together: each has a little less than the whole.
        let mut attempts = 0;
        let some = within(ms(20), ms(60_000), |may_take| {
            attempts += 1;
            let _ = computes(ms(15), ms(60_000));
            waits(ms(60_000), may_take)
        });
        assert!(some.is_err() && attempts <= 2, "{attempts}");
        let before = thread_time();
        assert!(within(ms(20), ms(60_000), |may_take| computes(ms(60_000), may_take)).is_err());
        assert!(thread_time().saturating_sub(before) < ms(5000));
    }
}
