//! What containers know of names: `/etc/hosts` and `/etc/resolv.conf`.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use crate::error::NodeError;
use crate::worker::{Agent, host_network, uid_of};

impl Agent {
    /// `/etc/hosts` and `/etc/resolv.conf` (`pkg/kubelet/network/dns/dns.go`).
    pub(crate) fn name_files(&self, pod: &Pod, ip: &str) -> Result<Vec<(PathBuf, PathBuf)>, NodeError> {
        let folder = self.pod_dir(uid_of(pod));
        let spec = pod.spec.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let hostname = spec.hostname.clone().unwrap_or(name);
        let mut hosts = format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{ip}\t{hostname}\n"
        );
        for alias in spec.host_aliases.iter().flatten() {
            hosts += &format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
        }
        let cluster = match spec.dns_policy.as_deref() {
            Some("Default" | "None") => false,
            Some("ClusterFirstWithHostNet") => true,
            _ => !host_network(pod),
        };
        let mut resolv = if cluster {
            let (namespace, domain) =
                (pod.metadata.namespace.clone().unwrap_or_default(), &self.config.cluster_domain);
            format!(
                "search {namespace}.svc.{domain} svc.{domain} {domain}\nnameserver {}\noptions ndots:5\n",
                self.config.cluster_dns
            )
        } else if spec.dns_policy.as_deref() == Some("None") {
            String::new()
        } else {
            std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
        };
        if let Some(dns) = &spec.dns_config {
            dns.nameservers.iter().flatten().for_each(|s| resolv += &format!("nameserver {s}\n"));
            if let Some(searches) = dns.searches.as_ref().filter(|s| !s.is_empty()) {
                resolv += &format!("search {}\n", searches.join(" "));
            }
        }
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
