//! Brings the kernel to what is desired, in one transaction that holds only the differences.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use network::nft;
use nlink::netlink::nftables::{Chain as NftChain, Set, SetElement, Transaction};
use nlink::netlink::{Connection, Netfilter, Nftables};

use super::ProxyConfig;
use super::conntrack::{self, UdpTargets};
use super::rules::{ChainName, Rules};
use super::table::{self, FAMILY, Field, Sets, Value};

/// Elements in one message. Its list of elements must stay below 64 KiB.
const CHUNK: usize = 256;

/// A failed attempt on the service rules.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused.
    #[error("cannot {attempt} in table {table}: {source}")]
    Netlink {
        /// What was attempted.
        attempt: &'static str,
        /// The table.
        table: String,
        /// The cause.
        source: nlink::Error,
    },
}

/// What an [`Applier::apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Chains made.
    pub chains_added: usize,
    /// Chains removed.
    pub chains_removed: usize,
    /// Elements of sets and maps added; a changed one counts as removed and added.
    pub elements_added: usize,
    /// Elements of sets and maps removed.
    pub elements_removed: usize,
    /// The whole table was made anew.
    pub replaced: bool,
    /// Tracked UDP flows ended because their endpoint is gone.
    pub flows_ended: usize,
}

/// What the kernel holds, as far as we know.
struct Kernel {
    chains: BTreeSet<ChainName>,
    /// Everything but the chains.
    rest: Arc<Rules>,
}

/// Keeps one nftables table of the calling thread's network namespace. Dropping it leaves the rules in place, and
/// the next one takes them over.
pub struct Applier {
    conn: Connection<Nftables>,
    /// Kept open: closing any netfilter socket waits until the kernel has freed what earlier transactions removed.
    flows: Connection<Netfilter>,
    table: String,
    config: ProxyConfig,
    kernel: Option<Kernel>,
    udp: Option<UdpTargets>,
}

impl Applier {
    /// Opens netlink; changes nothing yet.
    pub fn open(table: &str, config: ProxyConfig) -> Result<Self, ApplyError> {
        let conn = nft::connect().map_err(failed("open nftables", table))?;
        let flows =
            Connection::<Netfilter>::new().map_err(failed("open connection tracking for rules", table))?;
        Ok(Self { conn, flows, table: table.to_owned(), config, kernel: None, udp: None })
    }

    /// The configuration that the rules must be made with.
    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// Makes the kernel hold `rules`. At no moment is a packet met by a part of them.
    pub async fn apply(&mut self, rules: Arc<Rules>) -> Result<Applied, ApplyError> {
        let kernel = match self.kernel.take() {
            Some(kernel) => Some(kernel),
            None => self.adopt().await?,
        };
        let mut applied = match kernel {
            Some(kernel) => match self.change(&kernel, &rules, false).await {
                Ok(applied) => applied,
                Err(error) => {
                    // Somebody else changed the table. Ours takes its place in one step.
                    tracing::warn!(%error, "service rules are not as they were left; making them anew");
                    self.change(&Kernel::empty(), &rules, true).await?
                }
            },
            None => self.change(&Kernel::empty(), &rules, true).await?,
        };
        let udp = UdpTargets::of(&rules);
        self.kernel = Some(Kernel { chains: rules.chains.keys().cloned().collect(), rest: rules });
        if self.udp.as_ref() != Some(&udp) {
            applied.flows_ended = conntrack::end_stale(&self.flows, &udp)
                .await
                .map_err(failed("end stale UDP flows of services", &self.table))?;
            self.udp = Some(udp);
        }
        Ok(applied)
    }

    /// Forgets what the kernel should hold, so that the next `apply` reads it back. For a periodic check.
    pub fn forget(&mut self) {
        self.kernel = None;
    }

    /// Removes the table.
    pub async fn remove(mut self) -> Result<(), ApplyError> {
        self.kernel = None;
        let removed = self.conn.del_table_if_exists(self.table.as_str(), FAMILY).await;
        removed.map(drop).map_err(failed("remove rules", &self.table))
    }

    /// What an earlier run left, if it is of this version and configuration.
    async fn adopt(&self) -> Result<Option<Kernel>, ApplyError> {
        let table = self.table.as_str();
        let failed = || failed("read rules", table);
        let tables = self.conn.list_tables_in(FAMILY).await.map_err(failed())?;
        let signature = table::signature(&self.config);
        if !tables.iter().any(|t| t.name == table && t.comment.as_deref() == Some(&signature)) {
            return Ok(None);
        }
        let sets = Sets::new(table);
        let chains = self.conn.list_chains_in(table, FAMILY).await.map_err(failed())?;
        let chains = chains.into_iter().filter(|c| rank(&c.name).is_some()).map(|c| c.name.into()).collect();
        let read = async || {
            let rest = Rules {
                frontends: self.read(&sets.frontends).await?,
                node_ports: self.read(&sets.node_ports).await?,
                refused: self.read(&sets.refused).await?,
                refused_node_ports: self.read(&sets.refused_node_ports).await?,
                slots: self.read(&sets.slots).await?,
                live: self.read::<_, ()>(&sets.live).await?.into_keys().collect(),
                hairpin: self.read::<_, ()>(&sets.hairpin).await?.into_keys().collect(),
                ..Rules::default()
            };
            Ok::<_, nlink::Error>(Kernel { chains, rest: Arc::new(rest) })
        };
        match read().await {
            Ok(kernel) => Ok(Some(kernel)),
            // A set is missing: not as we left it.
            Err(e) if e.is_not_found() => Ok(None),
            Err(source) => Err(failed()(source)),
        }
    }

    async fn read<K: Field + Ord, V: Value>(&self, set: &Set) -> nlink::Result<BTreeMap<K, V>> {
        let elements = self.conn.list_set_elements(&self.table, set.name(), FAMILY).await?;
        Ok(elements.iter().filter_map(|e| Some((K::decode(e.key())?, V::get(e)?))).collect())
    }

    async fn change(&self, old: &Kernel, new: &Rules, replace: bool) -> Result<Applied, ApplyError> {
        let failed = || failed("write rules", &self.table);
        let mut draft = Draft {
            tx: self.conn.transaction(),
            applied: Applied { replaced: replace, ..Applied::default() },
        };
        if replace {
            draft.tx = table::scaffold(draft.tx, &self.table, &self.config).map_err(failed())?;
        }
        let draft = self.fill(draft, old, new).map_err(failed())?;
        let applied = draft.applied;
        if !replace && applied == Applied::default() {
            return Ok(applied);
        }
        draft.tx.commit(&self.conn).await.map_err(failed())?;
        Ok(applied)
    }

    fn fill(&self, mut draft: Draft, old: &Kernel, new: &Rules) -> nlink::Result<Draft> {
        let table = self.table.as_str();
        let mut added: Vec<_> = new.chains.iter().filter(|(name, _)| !old.chains.contains(*name)).collect();
        added.sort_by_key(|(name, _)| rank(name));
        for (name, chain) in added {
            draft.tx = draft.tx.add_chain(NftChain::new(table, &**name)?.family(FAMILY));
            for exprs in table::chain_rules(chain, &self.config)? {
                draft.tx = draft.tx.add_rule(table::rule(table, name, exprs));
            }
            draft.applied.chains_added += 1;
        }
        let chains = &old.chains;
        let (sets, old) = (Sets::new(table), &*old.rest);
        draft = draft.map(&sets.slots, &old.slots, &new.slots)?;
        draft = draft.set(&sets.live, &old.live, &new.live)?;
        draft = draft.set(&sets.hairpin, &old.hairpin, &new.hairpin)?;
        draft = draft.map(&sets.frontends, &old.frontends, &new.frontends)?;
        draft = draft.map(&sets.node_ports, &old.node_ports, &new.node_ports)?;
        draft = draft.map(&sets.refused, &old.refused, &new.refused)?;
        draft = draft.map(&sets.refused_node_ports, &old.refused_node_ports, &new.refused_node_ports)?;
        let mut removed: Vec<_> = chains.iter().filter(|name| !new.chains.contains_key(*name)).collect();
        removed.sort_by_key(|name| std::cmp::Reverse(rank(name)));
        for name in removed {
            draft.tx = draft.tx.del_chain(table, name, FAMILY);
            draft.applied.chains_removed += 1;
        }
        Ok(draft)
    }
}

/// A transaction in the making.
struct Draft {
    tx: Transaction,
    applied: Applied,
}

impl Kernel {
    fn empty() -> Self {
        Self { chains: BTreeSet::new(), rest: Arc::default() }
    }
}

impl Draft {
    fn map<K: Field + Ord, V: Value>(
        self,
        set: &Set,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
    ) -> nlink::Result<Self> {
        let gone = old.iter().filter(|(k, v)| new.get(k) != Some(v));
        let gone = gone.map(|(k, _)| SetElement::new(k.encode())).collect();
        let come = new.iter().filter(|(k, v)| old.get(k) != Some(v));
        let come = come.map(|(k, v)| v.put(SetElement::new(k.encode()))).collect::<nlink::Result<_>>()?;
        Ok(self.elements(set, gone, come))
    }

    fn set<K: Field + Ord>(self, set: &Set, old: &BTreeSet<K>, new: &BTreeSet<K>) -> nlink::Result<Self> {
        let element = |k: &K| SetElement::new(k.encode());
        let gone = old.difference(new).map(element).collect();
        let come = new.difference(old).map(element).collect();
        Ok(self.elements(set, gone, come))
    }

    fn elements(mut self, set: &Set, gone: Vec<SetElement>, come: Vec<SetElement>) -> Self {
        for chunk in gone.chunks(CHUNK) {
            self.tx = self.tx.del_set_elements(set, chunk);
        }
        for chunk in come.chunks(CHUNK) {
            self.tx = self.tx.add_set_elements(set, chunk);
        }
        self.applied.elements_removed += gone.len();
        self.applied.elements_added += come.len();
        self
    }
}

/// Chains name only chains of a lower rank. Other chains of the table are not ours to count.
fn rank(chain: &str) -> Option<u8> {
    match chain.get(..4)? {
        "svc-" | "ext-" => Some(0),
        "loc-" => Some(1),
        "src-" => Some(2),
        _ => None,
    }
}

fn failed(attempt: &'static str, table: &str) -> impl FnOnce(nlink::Error) -> ApplyError + use<> {
    let table = table.to_owned();
    move |source| ApplyError::Netlink { attempt, table, source }
}
