//! How many jobs a scheduler gives to which peers, so that each owns about its share.
//!
//! The rule: a share is the jobs of all schedulers that take some, divided among them. Who owns more than its share by
//! more than [`slack`] gives away down to the share, to peers that are below it and in proportion to what they lack. Several
//! who give at the same moment, having seen the same owners, divide each peer's lack in proportion to what they have
//! too much, so that no peer is lifted above its share, and nothing comes back.

use std::collections::BTreeMap;

use muster_state::SessionId;

/// At most so many are given away after one scan: each is a pause of its job, and a reading for its new owner.
const AT_ONCE: usize = 64;

/// What is too much beyond a share to be worth moving: a handful, or a fifth of a large share.
fn slack(share: usize) -> usize {
    const LEAST: usize = 2;
    LEAST.max(share / 5)
}

/// How many jobs `mine` gives to whom. `owned` has every scheduler that takes jobs, with the number that it owns.
pub(crate) fn surplus(owned: &BTreeMap<SessionId, usize>, mine: &SessionId) -> Vec<(SessionId, usize)> {
    let Some(&have) = owned.get(mine) else { return Vec::new() };
    let share = owned.values().sum::<usize>().div_ceil(owned.len());
    if have <= share + slack(share) {
        return Vec::new();
    }
    let excess = |have: usize| if have > share + slack(share) { have - share } else { 0 };
    let all: usize = owned.values().map(|&have| excess(have)).sum();
    let mut left = excess(have).min(AT_ONCE);
    let mut given = Vec::new();
    for (peer, &has) in owned {
        let lack = share.saturating_sub(has);
        let some = (lack * excess(have) / all).min(left);
        if some > 0 {
            given.push((peer.clone(), some));
            left -= some;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: usize) -> SessionId {
        SessionId(format!("s{number}"))
    }

    fn owned(counts: &[usize]) -> BTreeMap<SessionId, usize> {
        (0..).map(session).zip(counts.iter().copied()).collect()
    }

    fn gives(counts: &[usize], mine: usize) -> Vec<usize> {
        surplus(&owned(counts), &session(mine)).into_iter().map(|(_, some)| some).collect()
    }

    #[test]
    fn a_joining_scheduler_gets_its_share_and_small_differences_stay() {
        assert_eq!(gives(&[30, 30, 0], 0), [10]);
        assert_eq!(gives(&[30, 30, 0], 1), [10]);
        assert_eq!(gives(&[12, 10, 8], 0), Vec::<usize>::new(), "within the slack");
        assert_eq!(gives(&[3, 0], 0), Vec::<usize>::new());
        assert_eq!(gives(&[6, 0], 0), [3]);
        assert_eq!(gives(&[1000, 0], 0), [AT_ONCE], "and more after the next scan");
        assert_eq!(gives(&[7], 0), Vec::<usize>::new(), "nobody to give to");
    }

    #[test]
    fn all_who_give_at_the_same_moment_lift_nobody_above_the_share_and_soon_rest() {
        // A few hundred starts, spread by a fixed sequence.
        let mut seed = 1u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((seed >> 33) % below).unwrap()
        };
        for _ in 0..300 {
            let mut counts: Vec<usize> = (0..2 + next(6)).map(|_| next(400)).collect();
            let total: usize = counts.iter().sum();
            let share = total.div_ceil(counts.len());
            let mut rounds = 0;
            loop {
                let moves: Vec<(usize, Vec<(SessionId, usize)>)> =
                    (0..counts.len()).map(|at| (at, surplus(&owned(&counts), &session(at)))).collect();
                let before = counts.clone();
                for (from, given) in moves {
                    for (to, some) in given {
                        let to: usize = to.0[1..].parse().unwrap();
                        assert!(before[to] < share, "only who lacks some is given any");
                        counts[from] -= some;
                        counts[to] += some;
                        assert!(counts[to] <= share, "{before:?} became {counts:?}");
                    }
                }
                if counts == before {
                    break;
                }
                rounds += 1;
                assert!(rounds < 40, "{counts:?}");
            }
            assert!(counts.iter().all(|&count| count <= share + slack(share) + 7), "{counts:?}");
        }
    }
}
