//! Follows a table of the store: what keeps something in step with stored objects looks at all of them once, and from
//! then on at what changes.

use std::sync::{Arc, Weak};

use base::Drain;
use store::{Event, Revision, Watch, WatchEnd};

use crate::state::Inner;

/// What has become of a followed table since it was asked last.
#[derive(Debug)]
pub(crate) enum News {
    /// These events, oldest first; never none.
    Events(Vec<Arc<Event>>),
    /// More than history still knows: all that is stored has to be looked at. Events after this revision follow.
    Everything(Revision),
}

/// A place in the history of one table.
///
/// It does not keep the server alive, and ends when that drains, goes away or closes its store.
pub(crate) struct Follower {
    server: Weak<Inner>,
    drain: Drain,
    table: Arc<str>,
    /// None while the place is lost, or was never there.
    watch: Option<Watch>,
}

impl Follower {
    /// Follows a table of which nothing is known: the first news is [`News::Everything`].
    pub(crate) fn new(server: &Arc<Inner>, table: impl Into<Arc<str>>) -> Self {
        let table = table.into();
        Self { server: Arc::downgrade(server), drain: server.drain.clone(), table, watch: None }
    }

    /// Follows a table that is known as it was at a revision.
    pub(crate) fn since(server: &Arc<Inner>, table: impl Into<Arc<str>>, revision: Revision) -> Self {
        let follower = Self::new(server, table);
        Self { watch: server.store.watch(&follower.table, revision).ok(), ..follower }
    }

    /// Follows a table whose present state is looked at after this.
    pub(crate) fn from_now(server: &Arc<Inner>, table: impl Into<Arc<str>>) -> Self {
        Self::since(server, table, server.store.revision())
    }

    /// Waits for news, and gives them with the server they are about; none means that it is over. Nothing is lost if
    /// the future is dropped before it is done.
    pub(crate) async fn next(&mut self) -> Option<(Arc<Inner>, News)> {
        if let Some(watch) = &mut self.watch {
            let seen = tokio::select! {
                seen = watch.next() => seen,
                () = self.drain.started() => return None,
            };
            match seen {
                Ok(events) => return Some((self.server.upgrade()?, News::Events(events))),
                Err(WatchEnd::TooOld(_)) => self.watch = None,
                Err(WatchEnd::Closed) => return None,
            }
        }
        if self.drain.is_started() {
            return None;
        }
        let server = self.server.upgrade()?;
        // Before anybody looks, so that nothing is missed in between. Should history be forgotten in this very moment,
        // the next call finds no watch and does all of it again.
        let revision = server.store.revision();
        self.watch = server.store.watch(&self.table, revision).ok();
        Some((server, News::Everything(revision)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use store::{Expect, Op, Txn};

    use super::*;
    use crate::object;
    use crate::tests::TestServer;

    const TABLE: &str = "followed";

    async fn put(server: &Inner, key: &str) -> Revision {
        let value = object::template(&serde_json::json!({"metadata": {}}));
        let op = Op::Put {
            table: TABLE.into(),
            key: key.into(),
            value,
            terms: Default::default(),
            expect: Expect::Any,
        };
        server.store.commit(Txn::from(op)).await.unwrap().revision
    }

    async fn keys(follower: &mut Follower) -> Vec<String> {
        match follower.next().await.unwrap().1 {
            News::Events(events) => events.iter().map(|e| e.record.key.to_string()).collect(),
            News::Everything(revision) => panic!("everything at {revision}"),
        }
    }

    /// The revision since which all has to be looked at.
    async fn everything(follower: &mut Follower) -> Revision {
        match follower.next().await.unwrap().1 {
            News::Events(events) => panic!("{events:?}"),
            News::Everything(revision) => revision,
        }
    }

    #[tokio::test]
    async fn gives_each_change_once() {
        let test = TestServer::start().await;
        let server = &test.api.0;
        let known = put(server, "a").await;
        let mut since = Follower::since(server, TABLE, known);
        let mut new = Follower::new(server, TABLE);
        assert!(since.next().now_or_never().is_none());
        assert!(everything(&mut new).await >= known);
        put(server, "b").await;
        put(server, "c").await;
        for follower in [&mut since, &mut new] {
            assert_eq!(keys(follower).await, ["b", "c"]);
            assert!(follower.next().now_or_never().is_none());
        }
    }

    #[tokio::test]
    async fn begins_anew_when_history_was_compacted() {
        let test = TestServer::start().await;
        let server = &test.api.0;
        let known = put(server, "a").await;
        let mut slow = Follower::since(server, TABLE, known);
        let compacted = put(server, "b").await;
        server.store.compact(compacted).await.unwrap();
        let mut late = Follower::since(server, TABLE, known);
        for follower in [&mut slow, &mut late] {
            assert!(everything(follower).await >= compacted);
            assert!(follower.next().now_or_never().is_none());
        }
        put(server, "c").await;
        assert_eq!(keys(&mut slow).await, ["c"]);
        assert_eq!(keys(&mut late).await, ["c"]);
    }

    #[tokio::test]
    async fn ends_with_the_drain_the_store_or_the_server() {
        let test = TestServer::start().await;
        let server = &test.api.0;
        let mut gone = Follower { server: Weak::new(), ..Follower::new(server, TABLE) };
        assert!(gone.next().await.is_none());
        let mut follower = Follower::from_now(server, TABLE);
        let mut lost = Follower::new(server, TABLE);
        let ((), ended) = futures::join!(async { server.drain.start() }, follower.next());
        assert!(ended.is_none());
        assert!(lost.next().await.is_none());

        let test = TestServer::start().await;
        let mut follower = Follower::from_now(&test.api.0, TABLE);
        test.api.store().close().await;
        assert!(follower.next().await.is_none());
    }
}
