use std::future::Future;

use futures::future::join_all;

/// Does something `count` times: once, then twice as often side by side with each round, until one fails. Where
/// everything fails, this asks the server once instead of `count` times (kubernetes/kubernetes,
/// `pkg/controller/replicaset/replica_set.go`, `slowStartBatch`).
///
/// Gives how often it succeeded, how often it was not even tried, and the first failure.
pub(crate) async fn slow_start<F, Fut, E>(count: usize, mut act: F) -> (usize, usize, Option<E>)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let (mut done, mut left, mut batch) = (0, count, 1);
    while left > 0 {
        let size = batch.min(left);
        let outcomes = join_all((0..size).map(|_| act())).await;
        left -= size;
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(()) => done += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if failure.is_some() {
            return (done, left, failure);
        }
        batch *= 2;
    }
    (done, 0, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stops_after_the_first_round_with_a_failure() {
        let mut tried = 0;
        let outcome = slow_start(10, || {
            tried += 1;
            let fails = tried == 3;
            async move { if fails { Err("no") } else { Ok(()) } }
        })
        .await;
        assert_eq!(outcome, (2, 7, Some("no")));
        assert_eq!(slow_start(10, || async { Ok::<_, ()>(()) }).await, (10, 0, None));
    }
}
