use super::*;

impl Model {
    /// The sum of all scores but those that are the same for every node.
    pub(super) fn scores(&self, pod: &PodView, fitting: &[usize]) -> Vec<i64> {
        let nodes: Vec<&Node> = fitting.iter().map(|row| &self.nodes[*row]).collect();
        let mut total: Vec<i64> = nodes.iter().map(|node| self.resources(pod, node)).collect();
        let mut add = |weight: i64, scores: Vec<i64>| {
            total.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
        };
        if !nodes.is_empty() {
            add(self.choice.spread, self.spread_scores(pod, &nodes));
            add(self.choice.others, self.affinity_scores(pod, &nodes));
        }
        total
    }

    fn resources(&self, pod: &PodView, node: &Node) -> i64 {
        self.choice.fit * self.fit(pod, node) + self.choice.balanced * self.balance(pod, node)
    }

    /// What a node has of a resource, and what would be taken of it. With `little`, those who ask for nothing count.
    fn share(&self, pod: &PodView, node: &Node, name: &str, little: bool) -> Option<(i64, i64)> {
        const MIB: i64 = 1024 * 1024;
        let loads = || self.pods_on(node).chain([pod]);
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref()).unwrap();
        match name {
            "cpu" => {
                let of = |p: &PodView| if little && cpu_of(p) == 0 { 100 } else { cpu_of(p) };
                Some((cpu(Some(list)), loads().map(of).sum()))
            }
            // Nobody in the model asks for memory: each of the containers counts for a little of it.
            "memory" => {
                let bytes = list["memory"].0.parse::<types::Quantity>().unwrap().units();
                Some((bytes, if little { 200 * MIB * loads().count() as i64 } else { 0 }))
            }
            _ if cards_of(pod) == 0 || cards(Some(list)) == 0 => None,
            _ => Some((cards(Some(list)), loads().map(cards_of).sum())),
        }
    }

    fn fit(&self, pod: &PodView, node: &Node) -> i64 {
        let (mut sum, mut weights) = (0.0, 0);
        for (name, weight) in &self.choice.resources {
            let Some((has, taken)) = self.share(pod, node, name, true) else { continue };
            let percent = if taken > has { 100 } else { taken * 100 / has };
            let score = match self.choice.strategy {
                "LeastAllocated" if taken > has => 0,
                "LeastAllocated" => (has - taken) * 100 / has,
                "MostAllocated" => percent,
                // A line from each point to the next.
                _ => {
                    let points: Vec<(i64, i64)> =
                        self.choice.shape.iter().map(|(u, s)| (*u, s * 10)).collect();
                    let last = points.iter().rfind(|(u, _)| *u < percent);
                    let next = points.iter().find(|(u, _)| *u >= percent);
                    match (last, next) {
                        (Some((u, s)), Some((v, t))) => s + (t - s) * (percent - u) / (v - u),
                        (Some((_, s)), None) | (None, Some((_, s))) => *s,
                        (None, None) => 0,
                    }
                }
            };
            if score > 0 || self.choice.strategy != "RequestedToCapacityRatio" {
                sum += (score * weight) as f64;
                weights += weight;
            }
        }
        let mean = if weights == 0 { 0.0 } else { sum / weights as f64 };
        if self.choice.strategy == "RequestedToCapacityRatio" {
            mean.round() as i64
        } else {
            mean.floor() as i64
        }
    }

    fn balance(&self, pod: &PodView, node: &Node) -> i64 {
        let asked = |name: &str| match name {
            "cpu" => cpu_of(pod),
            "memory" => 0,
            _ => cards_of(pod),
        };
        if self.choice.balance.iter().all(|name| asked(name) == 0) {
            return 0;
        }
        let shares = self.choice.balance.iter().filter_map(|name| self.share(pod, node, name, false));
        let shares: Vec<f64> = shares.map(|(has, taken)| (taken as f64 / has as f64).min(1.0)).collect();
        let spread = match shares.len() {
            0 | 1 => 0.0,
            2 => ((shares[0] - shares[1]) / 2.0).abs(),
            n => {
                let mean = shares.iter().sum::<f64>() / n as f64;
                (shares.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / n as f64).sqrt()
            }
        };
        ((1.0 - spread) * 100.0) as i64
    }

    fn spread_scores(&self, pod: &PodView, nodes: &[&Node]) -> Vec<i64> {
        let all: Vec<_> = pod.spec.topology_spread_constraints.iter().flatten().cloned().collect();
        let own = !all.is_empty();
        let soft: Vec<TopologySpreadConstraint> = match own {
            true => all,
            false => self.defaults(pod),
        };
        let own = own || self.choice.defaults.is_some();
        let soft: Vec<_> = soft.into_iter().filter(|c| c.when_unsatisfiable == "ScheduleAnyway").collect();
        if soft.is_empty() {
            return vec![0; nodes.len()];
        }
        let ignored =
            |node: &Node| own && soft.iter().any(|c| !labels_of(node).contains_key(&c.topology_key));
        let scored: Vec<&&Node> = nodes.iter().filter(|node| !ignored(node)).collect();
        let count = |c: &TopologySpreadConstraint, node: &Node| {
            let staying = self.pods_on(node).filter(|p| p.metadata.deletion_timestamp.is_none());
            staying.filter(|p| self.spreads(c, pod, p)).count()
        };
        let crowd = |node: &Node| -> i64 {
            let mut sum = 0.0;
            for c in &soft {
                let hosts = c.topology_key == "kubernetes.io/hostname";
                let domains: std::collections::BTreeSet<Option<String>> =
                    scored.iter().map(|n| labels_of(n).get(&c.topology_key).cloned()).collect();
                let size = if hosts { scored.len() } else { domains.len() };
                let Some(here) = labels_of(node).get(&c.topology_key).cloned() else { continue };
                let there = match hosts {
                    true => count(c, node),
                    false => {
                        let same = |n: &&Node| {
                            labels_of(n).get(&c.topology_key) == Some(&here)
                                && !ignored(n)
                                && self.counts_for(c, pod, n)
                        };
                        self.nodes.iter().filter(same).map(|n| count(c, n)).sum()
                    }
                };
                sum += there as f64 * ((size + 2) as f64).ln() + f64::from(c.max_skew - 1);
            }
            sum.round() as i64
        };
        let crowds: Vec<Option<i64>> = nodes.iter().map(|n| (!ignored(n)).then(|| crowd(n))).collect();
        let least = crowds.iter().flatten().min().copied().unwrap_or(0);
        let most = crowds.iter().flatten().max().copied().unwrap_or(0);
        let score = |crowd: Option<i64>| match crowd {
            None => 0,
            Some(_) if most == 0 => 100,
            Some(crowd) => 100 * (most + least - crowd) / most,
        };
        crowds.into_iter().map(score).collect()
    }

    pub(super) fn defaults(&self, pod: &PodView) -> Vec<TopologySpreadConstraint> {
        let labels = pod_labels(pod);
        let selecting = |s: &&Labels| s.iter().all(|(key, value)| labels.get(key) == Some(value));
        let mut merged = Labels::new();
        if namespace_of(pod) == "a" {
            self.services.iter().filter(selecting).for_each(|s| merged.extend(s.clone()));
        }
        if merged.is_empty() {
            return Vec::new();
        }
        let constraint = |(key, max_skew, when): (&str, i32, &str)| TopologySpreadConstraint {
            label_selector: Some(LabelSelector { match_labels: Some(merged.clone()), ..Default::default() }),
            max_skew,
            topology_key: key.into(),
            when_unsatisfiable: when.into(),
            ..Default::default()
        };
        let system = [
            ("kubernetes.io/hostname", 3, "ScheduleAnyway"),
            ("topology.kubernetes.io/zone", 5, "ScheduleAnyway"),
        ];
        let all = self.choice.defaults.clone().unwrap_or_else(|| system.to_vec());
        all.into_iter().map(constraint).collect()
    }

    fn affinity_scores(&self, pod: &PodView, nodes: &[&Node]) -> Vec<i64> {
        if self.choice.ignores_liking && preferred(pod).is_empty() {
            return vec![0; nodes.len()];
        }
        let worth = |node: &Node| -> i64 {
            let mut sum = 0;
            for other in &self.nodes {
                let same = |key: &str| {
                    let (mine, theirs) = (labels_of(node), labels_of(other));
                    mine.contains_key(key) && mine.get(key) == theirs.get(key)
                };
                for there in self.pods_on(other) {
                    for (term, weight) in preferred(pod) {
                        let counts = same(&term.topology_key) && self.means(&term, pod, there);
                        sum += if counts { weight } else { 0 };
                    }
                    let hard = required_near(there).into_iter().map(|term| (term, self.choice.hard));
                    for (term, weight) in preferred(there).into_iter().chain(hard) {
                        let counts = same(&term.topology_key) && self.means(&term, there, pod);
                        sum += if counts { weight } else { 0 };
                    }
                }
            }
            sum
        };
        let worths: Vec<i64> = nodes.iter().map(|node| worth(node)).collect();
        let (least, most) = (worths.iter().min().copied().unwrap(), worths.iter().max().copied().unwrap());
        let share = |worth: i64| (worth - least) as f64 / (most - least) as f64;
        worths.iter().map(|w| if most > least { (100.0 * share(*w)) as i64 } else { 0 }).collect()
    }
}
