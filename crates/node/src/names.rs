//! What containers know of names: host name, `/etc/hosts` and `/etc/resolv.conf`.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use crate::error::NodeError;
use crate::worker::{Agent, host_network, uid_of};

/// The most that resolvers read (`pkg/apis/core/validation/validation.go`, `MaxDNSNameservers`).
const MOST_SERVERS: usize = 3;
const MOST_HOSTNAME: usize = 63;

/// What the pod calls itself whatever else it says; then it belongs to no domain.
fn overridden(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.hostname_override.as_deref().filter(|name| !name.is_empty())
}

/// A host name as DNS takes it (`pkg/util/node/node.go`, `TruncatePodHostnameIfNeeded`).
fn short_hostname(pod: &Pod) -> String {
    if let Some(own) = overridden(pod) {
        return own.to_owned();
    }
    let own = pod.spec.as_ref().and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let name = own.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let cut: String = name.chars().take(MOST_HOSTNAME).collect();
    if cut.len() < name.len() { cut.trim_end_matches(['-', '.']).to_owned() } else { cut }
}

/// The domain of a pod that belongs to a headless Service.
fn host_domain(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|s| !s.is_empty())?;
    if overridden(pod).is_some() {
        return None;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{subdomain}.{namespace}.svc.{cluster_domain}"))
}

/// What the pod calls itself.
pub(crate) fn hostname(pod: &Pod, cluster_domain: &str) -> String {
    let short = short_hostname(pod);
    let full = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn) == Some(true);
    match host_domain(pod, cluster_domain).filter(|_| full) {
        Some(domain) => format!("{short}.{domain}"),
        None => short,
    }
}

/// The most that the kernel takes.
const MOST_OF_KERNEL: usize = 64;

/// Whether the kernel takes the name (`pkg/util/node/node.go`, `GetNodenameForKernel`).
///
/// # Errors
/// When it is too long, which only a full one can be.
pub(crate) fn check_hostname(name: &str) -> Result<(), NodeError> {
    if name.len() <= MOST_OF_KERNEL {
        return Ok(());
    }
    Err(NodeError::Sandbox(format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({MOST_OF_KERNEL} characters is the max, {} characters requested)",
        name.len()
    )))
}

/// `/etc/hosts` (`pkg/kubelet/kubelet_pods.go`, `managedHostsFileContent`).
fn hosts(pod: &Pod, ip: &str, cluster_domain: &str, of_node: &str) -> String {
    let mut text = if host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{of_node}")
    } else {
        let short = short_hostname(pod);
        let names = match host_domain(pod, cluster_domain) {
            Some(domain) => format!("{short}.{domain}\t{short}"),
            None => short,
        };
        format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
             {ip}\t{names}\n"
        )
    };
    let aliases = pod.spec.iter().flat_map(|s| s.host_aliases.iter().flatten());
    for (i, alias) in aliases.enumerate() {
        if i == 0 {
            text += "\n# Entries added by HostAliases.\n";
        }
        text += &format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
    }
    text
}

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => found.servers.extend(words.next()),
                Some("search") => found.searches = words.collect(),
                Some("options") => found.options = words.collect(),
                _ => {}
            }
        }
        found
    }

    /// What the pod asks for (`pkg/kubelet/network/dns/dns.go`, `GetPodDNS`).
    fn of(pod: &Pod, node: Self, cluster_dns: &str, cluster_domain: &str) -> Self {
        let empty = k8s_openapi::api::core::v1::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let mut found = match spec.dns_policy.as_deref() {
            Some("None") => Self::default(),
            Some("Default") => node,
            Some("ClusterFirstWithHostNet") if !cluster_dns.is_empty() => {
                Self::cluster(pod, node, cluster_dns, cluster_domain)
            }
            _ if host_network(pod) || cluster_dns.is_empty() => node,
            _ => Self::cluster(pod, node, cluster_dns, cluster_domain),
        };
        if let Some(own) = &spec.dns_config {
            found.servers.extend(own.nameservers.iter().flatten().cloned());
            found.searches.extend(own.searches.iter().flatten().cloned());
            for option in own.options.iter().flatten() {
                let name = option.name.clone().unwrap_or_default();
                found.options.retain(|o| o.split(':').next() != Some(&name));
                found.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
                    Some(value) => format!("{name}:{value}"),
                    None => name,
                });
            }
        }
        once(&mut found.servers);
        once(&mut found.searches);
        found.servers.truncate(MOST_SERVERS);
        found
    }

    fn cluster(pod: &Pod, node: Self, dns: &str, domain: &str) -> Self {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut searches =
            vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
        searches.extend(node.searches);
        Self { servers: vec![dns.to_owned()], searches, options: vec!["ndots:5".into()] }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        self.servers.iter().for_each(|server| text += &format!("nameserver {server}\n"));
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

/// Leaves out what comes again.
fn once(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

impl Agent {
    /// The files, and where containers see them.
    pub(crate) fn name_files(&self, pod: &Pod, ip: &str) -> Result<Vec<(PathBuf, PathBuf)>, NodeError> {
        let folder = self.pod_dir(uid_of(pod));
        let domain = &self.config.cluster_domain;
        let of_node = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let hosts = hosts(pod, ip, domain, &of_node("/etc/hosts"));
        let resolver = self.config.kubelet.containers.resolv_conf.as_ref();
        let node = resolver.map(|path| Resolver::parse(&std::fs::read_to_string(path).unwrap_or_default()));
        let node = node.unwrap_or_default();
        let dns = self.config.cluster_dns.map(|ip| ip.to_string()).unwrap_or_default();
        let resolv = Resolver::of(pod, node, &dns, domain).text();
        let write = |file: &str, text: String| {
            let path = folder.join(file);
            let fault =
                |source| NodeError::File { attempt: "write", path: path.display().to_string(), source };
            std::fs::create_dir_all(&folder).map_err(fault)?;
            std::fs::write(&path, text).map_err(fault)?;
            Ok::<_, NodeError>(path.clone())
        };
        Ok(vec![
            (write("etc-hosts", hosts)?, "/etc/hosts".into()),
            (write("resolv.conf", resolv)?, "/etc/resolv.conf".into()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_knows_its_names() {
        let plain = pod(json!({"containers": []}));
        assert_eq!(hostname(&plain, "cluster.local"), "p");
        let named = pod(json!({"containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        assert_eq!(hostname(&named, "cluster.local"), "h");
        let text = hosts(&named, "10.0.0.2", "cluster.local", "");
        assert!(text.contains("\n10.0.0.2\th.s.n.svc.cluster.local\th\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
        let full = pod(json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": true}));
        assert_eq!(hostname(&full, "cluster.local"), "p.s.n.svc.cluster.local");
        let host = pod(json!({"containers": [], "hostNetwork": true}));
        assert!(
            hosts(&host, "", "cluster.local", "127.0.0.1 node\n")
                .ends_with("(host network).\n127.0.0.1 node\n")
        );
        let over = pod(
            json!({"containers": [], "hostname": "h", "subdomain": "s", "hostnameOverride": "a.b.example",
            "setHostnameAsFQDN": true}),
        );
        assert_eq!(hostname(&over, "cluster.local"), "a.b.example");
        assert!(hosts(&over, "10.0.0.2", "cluster.local", "").contains("\n10.0.0.2\ta.b.example\n"));
        assert!(check_hostname(&"x".repeat(64)).is_ok());
        let why = check_hostname(&"x".repeat(65)).unwrap_err().to_string();
        assert!(why.ends_with("is too long (64 characters is the max, 65 characters requested)"), "{why}");
        let long =
            pod(json!({"containers": [], "hostname": format!("{}-{}", "x".repeat(62), "y".repeat(9))}));
        assert_eq!(hostname(&long, "cluster.local"), "x".repeat(62));
    }

    #[test]
    fn names_are_resolved_as_the_policy_says() {
        let node = Resolver::parse("# c\nnameserver 9.9.9.9\nsearch corp\noptions edns0\n");
        let of = |spec: Value| Resolver::of(&pod(spec), node.clone(), "10.96.0.10", "cluster.local").text();
        let cluster = "search n.svc.cluster.local svc.cluster.local cluster.local corp\nnameserver 10.96.0.10\noptions ndots:5\n";
        let of_node = "search corp\nnameserver 9.9.9.9\noptions edns0\n";
        assert_eq!(of(json!({"containers": []})), cluster);
        assert_eq!(of(json!({"containers": [], "dnsPolicy": "Default"})), of_node);
        assert_eq!(of(json!({"containers": [], "dnsPolicy": "ClusterFirst", "hostNetwork": true})), of_node);
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"],
            "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}});
        assert_eq!(of(own), "search x\nnameserver 1.1.1.1\noptions ndots:2 rotate\n");
        let over = json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}});
        assert!(of(over).ends_with("options ndots:1\n"));
    }
}
