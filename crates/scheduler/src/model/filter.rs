use super::*;

/// The pods of the model need one feature or none.
fn able(pod: &PodView, node: &Node) -> bool {
    let declared = node.status.as_ref().and_then(|s| s.declared_features.as_ref());
    !pod.spec.containers.iter().any(|c| c.restarts_all)
        || declared.is_some_and(|all| all.iter().any(|f| f == "RestartAllContainersOnContainerExits"))
}

impl Model {
    /// What is in the way of a pod on a node.
    pub(super) fn why_not(&self, pod: &PodView, node: &Node) -> Vec<&'static str> {
        let on = |plugin: &str| !self.choice.off.contains(&plugin);
        if on("TaintToleration") && !self.tolerates(pod, node) {
            return vec!["node(s) had untolerated taint(s)"];
        }
        if on("NodeAffinity") {
            if self.choice.rack.is_some_and(|rack| labels_of(node).get("rack").is_none_or(|r| r != rack)) {
                return vec!["node(s) didn't match scheduler-enforced node affinity"];
            }
            if !self.wants(pod, node) {
                return vec!["node(s) didn't match Pod's node affinity/selector"];
            }
        }
        let lacking = self.lacking(pod, node);
        if on("NodeResourcesFit") && !lacking.is_empty() {
            return lacking;
        }
        let volumes = self.volume_obstacles(pod, node);
        if !volumes.is_empty() {
            return volumes;
        }
        let spread = self.spread_obstacle(pod, node).filter(|_| on("PodTopologySpread"));
        let others = || self.affinity_obstacle(pod, node).filter(|_| on("InterPodAffinity"));
        let able = || able(pod, node) || !on("NodeDeclaredFeatures");
        let features = || (!able()).then_some("node(s) didn't match Pod's required features");
        spread.or_else(others).or_else(features).into_iter().collect()
    }

    fn lacking(&self, pod: &PodView, node: &Node) -> Vec<&'static str> {
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let mut lacking = Vec::new();
        let taken: i64 = self.pods_on(node).map(cpu_of).sum();
        if cpu_of(pod) > 0 && taken + cpu_of(pod) > cpu(list) {
            lacking.push("Insufficient cpu");
        }
        let taken: i64 = self.pods_on(node).map(cards_of).sum();
        if !self.choice.ignores_cards && cards_of(pod) > 0 && taken + cards_of(pod) > cards(list) {
            lacking.push("Insufficient x.io/card");
        }
        lacking
    }

    pub(super) fn tolerates(&self, pod: &PodView, node: &Node) -> bool {
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
        let blind = pod.spec.tolerations.is_some();
        blind || taints.is_none_or(|taints| taints.iter().all(|t| t.effect != "NoSchedule"))
    }

    pub(super) fn wants(&self, pod: &PodView, node: &Node) -> bool {
        let labels = labels_of(node);
        pod.spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
    }

    pub(super) fn counts_for(&self, c: &TopologySpreadConstraint, pod: &PodView, node: &Node) -> bool {
        let affinity = c.node_affinity_policy.as_deref() != Some("Ignore");
        let taints = c.node_taints_policy.as_deref() == Some("Honor");
        (!affinity || self.wants(pod, node)) && (!taints || self.tolerates(pod, node))
    }

    fn spread_obstacle(&self, pod: &PodView, node: &Node) -> Option<&'static str> {
        let own: Vec<_> = pod.spec.topology_spread_constraints.iter().flatten().cloned().collect();
        let all = if own.is_empty() { self.defaults(pod) } else { own };
        let hard: Vec<_> = all.iter().filter(|c| c.when_unsatisfiable == "DoNotSchedule").collect();
        for c in &hard {
            let Some(here) = labels_of(node).get(&c.topology_key).cloned() else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let mut domains: BTreeMap<String, i64> = BTreeMap::new();
            for other in &self.nodes {
                let labels = labels_of(other);
                if hard.iter().all(|c| labels.contains_key(&c.topology_key)) && self.counts_for(c, pod, other)
                {
                    let staying = self.pods_on(other).filter(|p| p.metadata.deletion_timestamp.is_none());
                    let count = staying.filter(|p| self.spreads(c, pod, p)).count() as i64;
                    *domains.entry(labels[&c.topology_key].clone()).or_default() += count;
                }
            }
            let few = (domains.len() as i64) < i64::from(c.min_domains.unwrap_or(1));
            let least = if few { 0 } else { domains.values().min().copied().unwrap_or(0) };
            let own = i64::from(self.spreads(c, pod, pod));
            if domains.get(&here).copied().unwrap_or(0) + own - least > i64::from(c.max_skew) {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        None
    }

    /// The pods in a node's domain, and on how many nodes of any domain of the key.
    fn neighbours(&self, key: &str, node: &Node) -> Vec<&PodView> {
        let Some(here) = labels_of(node).get(key).cloned() else { return Vec::new() };
        let same = |other: &&Node| labels_of(other).get(key) == Some(&here);
        self.nodes.iter().filter(same).flat_map(|other| self.pods_on(other)).collect()
    }

    fn affinity_obstacle(&self, pod: &PodView, node: &Node) -> Option<&'static str> {
        let near = required_near(pod);
        let meant = |other: &PodView| near.iter().all(|term| self.means(term, pod, other));
        if near.iter().any(|term| !labels_of(node).contains_key(&term.topology_key)) {
            return Some("node(s) didn't match pod affinity rules");
        }
        let met = |term: &PodAffinityTerm| self.neighbours(&term.topology_key, node).into_iter().any(meant);
        if !near.iter().all(met) {
            let placed_in = |n: &Node| near.iter().any(|term| labels_of(n).contains_key(&term.topology_key));
            let anywhere =
                self.nodes.iter().filter(|n| placed_in(n)).flat_map(|n| self.pods_on(n)).any(meant);
            if anywhere || !meant(pod) {
                return Some("node(s) didn't match pod affinity rules");
            }
        }
        for term in required_apart(pod) {
            if self.neighbours(&term.topology_key, node).into_iter().any(|p| self.means(&term, pod, p)) {
                return Some("node(s) didn't match pod anti-affinity rules");
            }
        }
        let barring = |other: &&Node| {
            self.pods_on(other).any(|there| {
                required_apart(there).iter().any(|term| {
                    let (mine, theirs) = (labels_of(node), labels_of(other));
                    let (mine, theirs) = (mine.get(&term.topology_key), theirs.get(&term.topology_key));
                    mine.is_some() && mine == theirs && self.means(term, there, pod)
                })
            })
        };
        let barred = self.nodes.iter().any(|other| barring(&other));
        barred.then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }

    /// Who must leave a node for a pod when all less important ones are gone and the most important come back first.
    pub(super) fn reprieve(&self, pod: &PodView, node: &Node) -> Option<Vec<String>> {
        let lasting = [
            "taint",
            "affinity/selector",
            "missing required label",
            "pod affinity rules",
            "scheduler-enforced",
            "volume node affinity",
            "persistent volumes to bind",
            "non-existent pv(s)",
            "required features",
        ];
        let why = self.why_not(pod, node);
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let too_large = |w: &str| match w {
            "Insufficient cpu" => cpu_of(pod) > cpu(list),
            "Insufficient x.io/card" => cards_of(pod) > cards(list),
            _ => false,
        };
        let hopeless = |w: &&str| lasting.iter().any(|l| w.contains(l)) || too_large(w);
        if why.iter().any(hopeless) {
            return None;
        }
        let priority = |p: &PodView| p.spec.priority.unwrap_or(0);
        let lesser = |(name, p): &&(String, PodView)| *name == name_of(node) && priority(p) < priority(pod);
        let mut gone: Vec<(String, PodView)> = self.placed.iter().filter(lesser).cloned().collect();
        if gone.is_empty() {
            return None;
        }
        gone.sort_by_key(|(_, p)| (std::cmp::Reverse(priority(p)), p.metadata.uid.clone()));
        let mut world = Self {
            nodes: self.nodes.clone(),
            placed: self.placed.iter().filter(|entry| !lesser(entry)).cloned().collect(),
            namespaces: self.namespaces.clone(),
            services: self.services.clone(),
            storage: self.storage.clone(),
            choice: self.choice.clone(),
        };
        if !world.why_not(pod, node).is_empty() {
            return None;
        }
        let mut victims = Vec::new();
        for entry in gone {
            let uid = entry.1.metadata.uid.clone().unwrap();
            world.placed.push(entry);
            if !world.why_not(pod, node).is_empty() {
                world.placed.pop();
                victims.push(uid);
            }
        }
        Some(victims)
    }
}
