//! The numbers of an agent: `/metrics/resource` (kubernetes-sigs/metrics-server, `pkg/scraper/client/resource/decode.go`).

use std::collections::HashMap;

use base::Timestamp;

/// What something had used by a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Point {
    pub(crate) at: Timestamp,
    /// When it began; unknown for nodes.
    pub(crate) began: Option<Timestamp>,
    /// CPU time in nanoseconds since then.
    pub(crate) cpu_ns: u64,
    /// Bytes of memory that cannot be reclaimed at once.
    pub(crate) memory: u64,
}

/// All of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    pub(crate) node: Option<Point>,
    /// By namespace and pod, then container.
    pub(crate) pods: HashMap<(String, String), HashMap<String, Point>>,
}

#[derive(Default)]
struct Partial {
    at: Option<Timestamp>,
    began: Option<Timestamp>,
    cpu_ns: Option<u64>,
    memory: Option<u64>,
}

impl Partial {
    /// What says only half is not used.
    fn whole(self) -> Option<Point> {
        Some(Point {
            at: self.at?,
            began: self.began,
            cpu_ns: self.cpu_ns?,
            memory: self.memory.filter(|memory| *memory > 0)?,
        })
    }
}

/// Reads the text; what is not understood is left out.
pub(crate) fn parse(text: &str) -> Scrape {
    let mut node = Partial::default();
    let mut pods: HashMap<(String, String), HashMap<String, Partial>> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(sample) = Sample::parse(line) else { continue };
        let partial = if sample.name.starts_with("node_") {
            &mut node
        } else if sample.name.starts_with("container_") {
            let [container, namespace, pod] = ["container", "namespace", "pod"].map(|l| sample.label(l));
            let (Some(container), Some(namespace), Some(pod)) = (container, namespace, pod) else { continue };
            pods.entry((namespace, pod)).or_default().entry(container).or_default()
        } else {
            continue;
        };
        match sample.name.split_once('_').map(|(_, rest)| rest) {
            Some("cpu_usage_seconds_total") => {
                partial.cpu_ns = Some((sample.value * 1e9) as u64);
                partial.at = sample.at.or(partial.at);
            }
            Some("memory_working_set_bytes") => {
                partial.memory = Some(sample.value as u64);
                partial.at = partial.at.or(sample.at);
            }
            Some("start_time_seconds") => {
                partial.began = Timestamp::from_millisecond((sample.value * 1e3) as i64).ok();
            }
            _ => {}
        }
    }
    let whole = |containers: HashMap<String, Partial>| -> Option<HashMap<String, Point>> {
        // A pod of which a container is not known yet is not told of: its sum would be wrong.
        containers.into_iter().map(|(name, partial)| Some((name, partial.whole()?))).collect()
    };
    let pods = pods.into_iter().filter_map(|(key, containers)| Some((key, whole(containers)?)));
    Scrape { node: node.whole(), pods: pods.collect() }
}

/// One line: `name{label="value",…} number time`.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
    at: Option<Timestamp>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"")?;
                let (value, after) = quoted(after)?;
                labels.push((label.trim_start_matches(',').trim(), value));
                rest = after.trim_start_matches(',');
            }
            rest = &rest[1..];
        }
        let mut words = rest.split_ascii_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        let at = words.next().and_then(|word| Timestamp::from_millisecond(word.parse().ok()?).ok());
        (value.is_finite() && value >= 0.0).then_some(Self { name, labels, value, at })
    }

    fn label(&self, name: &str) -> Option<String> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.clone())
    }
}

/// Text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_agents_say() {
        let text = "# HELP node_cpu_usage_seconds_total x\n# TYPE node_cpu_usage_seconds_total counter\n\
            node_cpu_usage_seconds_total 12.5 1700000000500\nnode_memory_working_set_bytes 4096 1700000000500\n\
            container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1e-3 1700000000000\n\
            container_memory_working_set_bytes{container=\"a\",namespace=\"n\",pod=\"p\"} 1.5e+06 1700000000000\n\
            container_start_time_seconds{container=\"a\",namespace=\"n\",pod=\"p\"} 1.6999999995e+09\n\
            container_cpu_usage_seconds_total{container=\"b\",namespace=\"n\",pod=\"half\"} 1 1700000000000\n\
            pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 3 1700000000000\nnonsense{\n";
        let scrape = parse(text);
        let node = scrape.node.unwrap();
        assert_eq!(
            (node.cpu_ns, node.memory, node.at.as_millisecond()),
            (12_500_000_000, 4096, 1_700_000_000_500)
        );
        assert_eq!(scrape.pods.len(), 1);
        let point = scrape.pods[&("n".to_owned(), "p".to_owned())]["a"];
        assert_eq!((point.cpu_ns, point.memory), (1_000_000, 1_500_000));
        assert_eq!(point.began.unwrap().as_millisecond(), 1_699_999_999_500);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(container_|node_|cpu_usage_seconds_total|[{}\",= \\\\a1.\n]){0,40}") {
            let _ = parse(&text);
        }
    }
}
