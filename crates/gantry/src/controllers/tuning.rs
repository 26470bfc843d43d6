//! Settings of single controllers.

use std::time::Duration;

use clap::Args;
use controllers::{Concurrency, EndpointSettings, Tuning, VolumeSettings};

use crate::kubelet::time;

/// How controllers work, each by itself.
#[derive(Clone, Debug, Args)]
pub struct TuningArgs {
    /// Deployments that are looked at side by side [default: 8]
    #[arg(long, env = "GANTRY_CONCURRENT_DEPLOYMENT_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_deployment_syncs: Option<u16>,
    /// ReplicaSets that are looked at side by side [default: 8]
    #[arg(long, env = "GANTRY_CONCURRENT_REPLICASET_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_replicaset_syncs: Option<u16>,
    /// ReplicationControllers that are looked at side by side [default: 8]
    #[arg(long, env = "GANTRY_CONCURRENT_RC_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_rc_syncs: Option<u16>,
    /// StatefulSets that are looked at side by side [default: 8]
    #[arg(long, env = "GANTRY_CONCURRENT_STATEFULSET_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_statefulset_syncs: Option<u16>,
    /// DaemonSets that are looked at side by side [default: 2]
    #[arg(long, env = "GANTRY_CONCURRENT_DAEMONSET_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_daemonset_syncs: Option<u16>,
    /// Jobs that are looked at side by side [default: 8]
    #[arg(long, env = "GANTRY_CONCURRENT_JOB_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_job_syncs: Option<u16>,
    /// CronJobs that are looked at side by side [default: 5]
    #[arg(long, env = "GANTRY_CONCURRENT_CRON_JOB_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_cron_job_syncs: Option<u16>,
    /// Jobs with a time to live that are looked at side by side [default: 4]
    #[arg(
        long,
        env = "GANTRY_CONCURRENT_TTL_AFTER_FINISHED_SYNCS",
        value_name = "COUNT",
        value_parser = objects()
    )]
    pub concurrent_ttl_after_finished_syncs: Option<u16>,
    /// Autoscalers that are looked at side by side [default: 4]
    #[arg(
        long,
        env = "GANTRY_CONCURRENT_HORIZONTAL_POD_AUTOSCALER_SYNCS",
        value_name = "COUNT",
        value_parser = objects()
    )]
    pub concurrent_horizontal_pod_autoscaler_syncs: Option<u16>,
    /// Namespaces that are looked at side by side [default: 4]
    #[arg(long, env = "GANTRY_CONCURRENT_NAMESPACE_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_namespace_syncs: Option<u16>,
    /// Objects that the garbage collector looks at side by side [default: 16]
    #[arg(long, env = "GANTRY_CONCURRENT_GC_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_gc_syncs: Option<u16>,
    /// Services whose EndpointSlices and Endpoints are looked at side by side [default: 8]
    #[arg(
        long,
        env = "GANTRY_CONCURRENT_SERVICE_ENDPOINT_SYNCS",
        value_name = "COUNT",
        value_parser = objects()
    )]
    pub concurrent_service_endpoint_syncs: Option<u16>,
    /// The same, for both are written together: the larger number counts
    #[arg(long, env = "GANTRY_CONCURRENT_ENDPOINT_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_endpoint_syncs: Option<u16>,
    /// Endpoints that are mirrored side by side [default: 4]
    #[arg(
        long,
        env = "GANTRY_MIRRORING_CONCURRENT_SERVICE_ENDPOINT_SYNCS",
        value_name = "COUNT",
        value_parser = objects()
    )]
    pub mirroring_concurrent_service_endpoint_syncs: Option<u16>,
    /// Pods whose own volumes are looked at side by side [default: 4]
    #[arg(long, env = "GANTRY_CONCURRENT_EPHEMERALVOLUME_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_ephemeralvolume_syncs: Option<u16>,
    /// ResourceClaims, and pods that need some, that are looked at side by side [default: 10 and 4]
    #[arg(long, env = "GANTRY_CONCURRENT_RESOURCE_CLAIM_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_resource_claim_syncs: Option<u16>,
    /// Pods with tainted devices that are looked at side by side [default: 10]
    #[arg(
        long,
        env = "GANTRY_CONCURRENT_DEVICE_TAINT_EVICTION_SYNCS",
        value_name = "COUNT",
        value_parser = objects()
    )]
    pub concurrent_device_taint_eviction_syncs: Option<u16>,
    /// How many endpoints an EndpointSlice holds at most
    #[arg(long, env = "GANTRY_MAX_ENDPOINTS_PER_SLICE", value_name = "COUNT", default_value_t = 100,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_endpoints_per_slice: u16,
    /// How many addresses of a subset of Endpoints are mirrored at most
    #[arg(long, env = "GANTRY_MIRRORING_MAX_ENDPOINTS_PER_SUBSET", value_name = "COUNT", default_value_t = 1000,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub mirroring_max_endpoints_per_subset: u16,
    /// For how long changes of pods are gathered before EndpointSlices are written
    #[arg(long, env = "GANTRY_ENDPOINTSLICE_UPDATES_BATCH_PERIOD", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub endpointslice_updates_batch_period: Duration,
    /// The same for Endpoints, which are never written sooner than slices
    #[arg(long, env = "GANTRY_ENDPOINT_UPDATES_BATCH_PERIOD", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub endpoint_updates_batch_period: Duration,
    /// For how long changes of Endpoints are gathered before they are mirrored
    #[arg(long, env = "GANTRY_MIRRORING_ENDPOINTSLICE_UPDATES_BATCH_PERIOD", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub mirroring_endpointslice_updates_batch_period: Duration,
    /// How often people are told why a claim still waits for its volume
    #[arg(long, env = "GANTRY_PVCLAIMBINDER_SYNC_PERIOD", value_name = "TIME", default_value = "15s", value_parser = time)]
    pub pvclaimbinder_sync_period: Duration,
    /// Whether provisioners are asked for the volumes of claims
    #[arg(long, env = "GANTRY_ENABLE_DYNAMIC_PROVISIONING", value_name = "BOOL", default_value_t = true,
        action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_dynamic_provisioning: bool,
    /// Wait without end for an ill node to let go of volumes that it says it uses, and not for six minutes only
    #[arg(long, env = "GANTRY_DISABLE_FORCE_DETACH_ON_TIMEOUT")]
    pub disable_force_detach_on_timeout: bool,
    /// For how long a token of a Secret that was made for its account may go unused before it is put away
    #[arg(long, env = "GANTRY_LEGACY_SERVICE_ACCOUNT_TOKEN_CLEAN_UP_PERIOD", value_name = "TIME", default_value = "8760h", value_parser = time)]
    pub legacy_service_account_token_clean_up_period: Duration,
    /// Whether objects go with their owners; without, deleting an owner in the foreground does not wait for them either
    #[arg(long, env = "GANTRY_ENABLE_GARBAGE_COLLECTOR", value_name = "BOOL", default_value_t = true,
        action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_garbage_collector: bool,
    /// Whether nodes get ranges of addresses for their pods
    #[arg(long, env = "GANTRY_ALLOCATE_NODE_CIDRS", value_name = "BOOL", default_value_t = true,
        action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allocate_node_cidrs: bool,
}

fn objects() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

impl TuningArgs {
    /// What the controllers are told.
    pub fn settings(&self) -> Tuning {
        let endpoints = EndpointSettings {
            most_in_slice: self.max_endpoints_per_slice.into(),
            most_mirrored: self.mirroring_max_endpoints_per_subset.into(),
            slices_batch: self.endpointslice_updates_batch_period,
            endpoints_batch: self.endpoint_updates_batch_period,
            mirror_batch: self.mirroring_endpointslice_updates_batch_period,
        };
        let volumes = VolumeSettings {
            // Each time costs a write.
            sync_period: self.pvclaimbinder_sync_period.max(Duration::from_secs(1)),
            provisioning: self.enable_dynamic_provisioning,
            force_detach: !self.disable_force_detach_on_timeout,
        };
        Tuning {
            concurrency: self.concurrency(),
            endpoints,
            volumes,
            unused_tokens: self.legacy_service_account_token_clean_up_period,
        }
    }

    /// The controllers that a flag of their own switches off.
    pub fn switched_off(&self) -> impl Iterator<Item = &'static str> {
        let garbage = (!self.enable_garbage_collector).then_some("garbage-collector-controller");
        garbage.into_iter().chain((!self.allocate_node_cidrs).then_some("node-ipam-controller"))
    }

    fn concurrency(&self) -> Concurrency {
        let services = self.concurrent_service_endpoint_syncs.max(self.concurrent_endpoint_syncs);
        let mut all = Concurrency::default();
        for (controller, objects) in [
            ("deployment-controller", self.concurrent_deployment_syncs),
            ("replicaset-controller", self.concurrent_replicaset_syncs),
            ("replicationcontroller-controller", self.concurrent_rc_syncs),
            ("statefulset-controller", self.concurrent_statefulset_syncs),
            ("daemonset-controller", self.concurrent_daemonset_syncs),
            ("job-controller", self.concurrent_job_syncs),
            ("cronjob-controller", self.concurrent_cron_job_syncs),
            ("ttl-after-finished-controller", self.concurrent_ttl_after_finished_syncs),
            ("horizontal-pod-autoscaler-controller", self.concurrent_horizontal_pod_autoscaler_syncs),
            ("namespace-controller", self.concurrent_namespace_syncs),
            ("garbage-collector-controller", self.concurrent_gc_syncs),
            ("endpointslice-controller", services),
            ("endpoints-controller", services),
            ("endpointslice-mirroring-controller", self.mirroring_concurrent_service_endpoint_syncs),
            ("ephemeral-volume-controller", self.concurrent_ephemeralvolume_syncs),
            ("resourceclaim-controller", self.concurrent_resource_claim_syncs),
            ("device-taint-eviction-controller", self.concurrent_device_taint_eviction_syncs),
        ] {
            if let Some(objects) = objects {
                all.set(controller, objects.into());
            }
        }
        all
    }
}

/// Settings of kube-controller-manager that have nothing to set here. They are taken, so that a list of its settings can
/// be handed over as it is: whatever they say, nothing is lost.
#[derive(Clone, Debug, Args)]
#[allow(dead_code)]
#[command(next_help_heading = "Taken for kube-controller-manager's sake, and without effect")]
pub struct VoidArgs {
    /// Quotas are counted by the API server, as things come and go
    #[arg(long, env = "GANTRY_CONCURRENT_RESOURCE_QUOTA_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_resource_quota_syncs: Option<u16>,
    /// There are no load balancers of a cloud
    #[arg(long, env = "GANTRY_CONCURRENT_SERVICE_SYNCS", value_name = "COUNT", value_parser = objects())]
    pub concurrent_service_syncs: Option<u16>,
    /// Tokens of Secrets are made by the API server, as Secrets come
    #[arg(
        long,
        env = "GANTRY_CONCURRENT_SERVICEACCOUNT_TOKEN_SYNCS",
        value_name = "COUNT",
        value_parser = objects()
    )]
    pub concurrent_serviceaccount_token_syncs: Option<u16>,
    /// Policies are checked by the API server, as they come
    #[arg(
        long,
        env = "GANTRY_CONCURRENT_VALIDATING_ADMISSION_POLICY_STATUS_SYNCS",
        value_name = "COUNT",
        value_parser = objects()
    )]
    pub concurrent_validating_admission_policy_status_syncs: Option<u16>,
    /// Controllers ask without a limit: the API's priority levels have theirs
    #[arg(long, env = "GANTRY_KUBE_API_QPS", value_name = "NUMBER", allow_negative_numbers = true)]
    pub kube_api_qps: Option<f32>,
    /// Likewise
    #[arg(long, env = "GANTRY_KUBE_API_BURST", value_name = "COUNT", allow_negative_numbers = true)]
    pub kube_api_burst: Option<i32>,
    /// Controllers and API are in one process
    #[arg(long, env = "GANTRY_KUBE_API_CONTENT_TYPE", value_name = "TYPE")]
    pub kube_api_content_type: Option<String>,
    /// Controllers look at what changes, and at nothing else
    #[arg(long, env = "GANTRY_MIN_RESYNC_PERIOD", value_name = "TIME", value_parser = time)]
    pub min_resync_period: Option<Duration>,
    /// Likewise
    #[arg(long, env = "GANTRY_NAMESPACE_SYNC_PERIOD", value_name = "TIME", value_parser = time)]
    pub namespace_sync_period: Option<Duration>,
    /// Likewise
    #[arg(long, env = "GANTRY_RESOURCE_QUOTA_SYNC_PERIOD", value_name = "TIME", value_parser = time)]
    pub resource_quota_sync_period: Option<Duration>,
    /// Nodes are looked at when their time is over
    #[arg(long, env = "GANTRY_NODE_MONITOR_PERIOD", value_name = "TIME", value_parser = time)]
    pub node_monitor_period: Option<Duration>,
    /// What is attached is read from VolumeAttachments, and never another thing than they say
    #[arg(long, env = "GANTRY_ATTACH_DETACH_RECONCILE_SYNC_PERIOD", value_name = "TIME", value_parser = time)]
    pub attach_detach_reconcile_sync_period: Option<Duration>,
    /// Likewise
    #[arg(long, env = "GANTRY_DISABLE_ATTACH_DETACH_RECONCILE_SYNC")]
    pub disable_attach_detach_reconcile_sync: bool,
    /// All controllers start at once
    #[arg(long, env = "GANTRY_CONTROLLER_START_INTERVAL", value_name = "TIME", value_parser = time)]
    pub controller_start_interval: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tuning: TuningArgs,
        #[command(flatten)]
        _void: VoidArgs,
    }

    fn read(flags: &[&str]) -> Result<TuningArgs, String> {
        let line = Line::try_parse_from(["server"].iter().chain(flags));
        line.map(|line| line.tuning).map_err(|fault| fault.to_string())
    }

    #[test]
    fn without_flags_everything_is_as_the_controllers_have_it() {
        let tuning = read(&[]).unwrap();
        assert_eq!(tuning.settings(), Tuning::default());
        assert_eq!(tuning.switched_off().count(), 0);
    }

    #[test]
    fn what_is_said_is_what_they_are_told() {
        let tuning = read(&[
            "--concurrent-deployment-syncs=3",
            "--concurrent-endpoint-syncs=20",
            "--concurrent-service-endpoint-syncs=5",
            "--max-endpoints-per-slice=7",
            "--endpointslice-updates-batch-period=500ms",
            "--enable-dynamic-provisioning=false",
            "--enable-garbage-collector=false",
            "--allocate-node-cidrs",
            "--disable-force-detach-on-timeout",
        ]);
        let tuning = tuning.unwrap();
        let settings = tuning.settings();
        let mut concurrency = Concurrency::default();
        concurrency.set("deployment-controller", 3);
        concurrency.set("endpointslice-controller", 20);
        concurrency.set("endpoints-controller", 20);
        assert_eq!(settings.concurrency, concurrency);
        assert_eq!(
            (settings.endpoints.most_in_slice, settings.endpoints.slices_batch),
            (7, Duration::from_millis(500))
        );
        assert!(!settings.volumes.provisioning && !settings.volumes.force_detach);
        assert_eq!(tuning.switched_off().collect::<Vec<_>>(), ["garbage-collector-controller"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in [
            ["--concurrent-job-syncs=0"],
            ["--max-endpoints-per-slice=1001"],
            ["--concurrent-service-syncs=many"],
            ["--namespace-sync-period=soon"],
        ] {
            let flag = flags[0].split('=').next().unwrap();
            let fault = read(&flags).err().unwrap_or_default();
            assert!(fault.contains(flag), "{flags:?}: {fault}");
        }
        assert!(read(&["--kube-api-qps=-1", "--kube-api-burst=600", "--min-resync-period=12h"]).is_ok());
    }
}
