use serde_json::json;

use super::args::ResourceSpec;
use super::*;

fn file(more: Value) -> Value {
    let mut file = json!({"apiVersion": GROUP_VERSION, "kind": KIND});
    for (field, value) in more.as_object().into_iter().flatten() {
        file[field] = value.clone();
    }
    file
}

fn fault(more: Value) -> String {
    match Settings::read(&file(more)) {
        Ok(_) => "nothing wrong".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A configuration with one profile.
fn with(profile: Value) -> Value {
    json!({"profiles": [profile]})
}

fn only(profile: Value) -> Arc<Profile> {
    Settings::read(&file(with(profile))).unwrap().profiles[0].clone()
}

fn weights(profile: &Profile) -> [i64; 7] {
    [
        Plugin::TaintToleration,
        Plugin::NodeAffinity,
        Plugin::NodeResourcesFit,
        Plugin::PodTopologySpread,
        Plugin::InterPodAffinity,
        Plugin::NodeResourcesBalancedAllocation,
        Plugin::ImageLocality,
    ]
    .map(|plugin| profile.weight(plugin))
}

#[test]
fn without_anything_it_is_upstreams_default() {
    for settings in [Settings::default(), Settings::read(&file(json!({}))).unwrap()] {
        let [profile] = settings.profiles.as_slice() else { panic!("one profile") };
        assert_eq!(&*profile.name, "default-scheduler");
        assert_eq!(weights(profile), [3, 2, 1, 2, 2, 1, 1]);
        assert!(profile.filters(Plugin::VolumeZone) && profile.preempts() && profile.heeds_gates());
        assert_eq!((profile.strategy.clone(), profile.candidates), (Strategy::Least, (10, 100)));
        assert_eq!((settings.first_backoff.as_secs(), settings.most_backoff.as_secs()), (1, 10));
    }
}

#[test]
fn the_default_plugins_have_their_turns_in_upstreams_order() {
    let names: Vec<&str> = Plugin::ALL.iter().map(|plugin| plugin.name()).collect();
    let want = "SchedulingGates PrioritySort NodeUnschedulable NodeName TaintToleration NodeAffinity NodePorts \
        NodeResourcesFit VolumeRestrictions NodeVolumeLimits VolumeBinding VolumeZone PodTopologySpread \
        InterPodAffinity DynamicResources DefaultPreemption NodeResourcesBalancedAllocation ImageLocality \
        DefaultBinder NodeDeclaredFeatures GangScheduling";
    assert_eq!(names.join(" "), want);
    let profile = only(json!({}));
    assert_eq!(profile.weight(Plugin::DynamicResources), 2);
    assert!(profile.filters(Plugin::NodeDeclaredFeatures) && profile.deallocates());
    assert_eq!(profile.device_timeout.as_secs(), 600);
    let more = json!({"pluginConfig": [{"name": "DynamicResources", "args": {"bindingTimeout": "1m30s"}}]});
    assert_eq!(only(more).device_timeout.as_secs(), 90);
}

#[test]
fn plugins_are_named_for_all_points_or_for_one() {
    let profile = only(json!({"schedulerName": "mine", "plugins": {
        "multiPoint": {"enabled": [{"name": "ImageLocality", "weight": 7}], "disabled": [{"name": "InterPodAffinity"}]},
        "score": {"enabled": [{"name": "NodeResourcesFit", "weight": 5}], "disabled": [{"name": "TaintToleration"}]},
        "postFilter": {"disabled": [{"name": "*"}]},
    }}));
    assert_eq!(&*profile.name, "mine");
    assert_eq!(weights(&profile), [0, 2, 5, 2, 0, 1, 7]);
    assert!(profile.filters(Plugin::TaintToleration) && !profile.filters(Plugin::InterPodAffinity));
    assert!(!profile.preempts());
    let profile = only(
        json!({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality"}]}}}),
    );
    assert_eq!(weights(&profile), [0, 0, 0, 0, 0, 0, 1]);
    let profile = only(json!({"plugins": {"multiPoint": {"disabled": [{"name": "*"}],
        "enabled": [{"name": "PrioritySort"}, {"name": "DefaultBinder"}, {"name": "NodeResourcesFit", "weight": 3}]}}}));
    assert_eq!(weights(&profile), [0, 0, 3, 0, 0, 0, 0]);
    assert!(profile.filters(Plugin::NodeResourcesFit) && !profile.filters(Plugin::NodeAffinity));
    assert!(!profile.heeds_gates());
}

#[test]
fn arguments_are_read_with_their_defaults() {
    let profile = only(json!({"percentageOfNodesToScore": 40, "pluginConfig": [
        {"name": "NodeResourcesFit", "args": {"apiVersion": GROUP_VERSION, "kind": "NodeResourcesFitArgs",
            "ignoredResources": ["x.io/gpu"], "ignoredResourceGroups": ["y.io"],
            "scoringStrategy": {"type": "RequestedToCapacityRatio", "resources": [{"name": "x.io/nic"}],
                "requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]}}}},
        {"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 9}},
        {"name": "VolumeBinding", "args": {"bindTimeoutSeconds": 3}},
        {"name": "PodTopologySpread", "args": {"defaultingType": "List", "defaultConstraints":
            [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]}},
        {"name": "NodeAffinity", "args": {"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}]}}}},
        {"name": "DefaultPreemption", "args": {"minCandidateNodesAbsolute": 7}},
    ]}));
    let full = [(0, 0), (100, 100)].map(|(utilization, score)| ShapePoint { utilization, score });
    assert_eq!(profile.strategy, Strategy::Ratio(full.into()));
    assert_eq!(profile.resources, [ResourceSpec { name: "x.io/nic".into(), weight: 1 }]);
    let ignored = ["x.io/gpu", "y.io/any", "x.io/nic", "cpu"].map(|name| profile.ignores(name));
    assert_eq!(ignored, [true, true, false, false]);
    assert_eq!((profile.hard_affinity, profile.bind_timeout.as_secs()), (9, 3));
    assert_eq!(profile.spread.as_ref().unwrap()[0].topology_key, "rack");
    let added = profile.added.as_ref().unwrap();
    assert!(added.needs.admit("n", &[("pool".to_owned(), "a".to_owned())].into()));
    assert_eq!((profile.candidates, profile.percentage), ((10, 7), 40));
}

#[test]
fn what_cannot_be_used_is_told_in_upstreams_words() {
    let config = |name: &str, args: Value| with(json!({"pluginConfig": [{"name": name, "args": args}]}));
    let fit = |args: Value| config("NodeResourcesFit", json!({"scoringStrategy": args}));
    let plugins = |plugins: Value| with(json!({"plugins": plugins}));
    let enabled = |name: &str| json!({"enabled": [{"name": name}]});
    let disabled = |name: &str| json!({"disabled": [{"name": name}]});
    for (more, why) in [
        (json!({"kind": "X"}), "no kind \"X\" is registered for version \"kubescheduler.config.k8s.io/v1\""),
        (
            json!({"apiVersion": "kubescheduler.config.k8s.io/v1beta3"}),
            "no kind \"KubeSchedulerConfiguration\"",
        ),
        (json!({"profile": []}), "strict decoding error: unknown field \"profile\""),
        (with(json!({"plugin": {}})), "strict decoding error: unknown field \"profiles[0].plugin\""),
        (json!({"parallelism": "many"}), "json: cannot unmarshal string into Go struct field"),
        (
            json!({"parallelism": 0}),
            "parallelism: Invalid value: 0: should be an integer value greater than zero",
        ),
        (
            json!({"percentageOfNodesToScore": 101}),
            "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
        ),
        (
            json!({"podInitialBackoffSeconds": 0}),
            "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            json!({"podInitialBackoffSeconds": 9, "podMaxBackoffSeconds": 8}),
            "podMaxBackoffSeconds: Invalid value: 8: must be greater than or equal to PodInitialBackoffSeconds",
        ),
        (json!({"leaderElection": {"resourceLock": "x"}}), "resourceLock value must be \"leases\""),
        (
            json!({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}),
            "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
        ),
        (json!({"profiles": [{"schedulerName": "a"}, {}]}), "profiles[1].schedulerName: Required value"),
        (
            plugins(json!({"filter": enabled("Mine")})),
            "creating profile for scheduler name default-scheduler: FilterPlugin \"Mine\" does not exist",
        ),
        (plugins(json!({"multiPoint": enabled("Mine")})), "MultiPointPlugin \"Mine\" does not exist"),
        (
            plugins(json!({"score": enabled("NodePorts")})),
            "plugin \"NodePorts\" does not extend ScorePlugin plugin",
        ),
        (
            plugins(json!({"score": {"enabled": [{"name": "ImageLocality"}, {"name": "ImageLocality"}]}})),
            "plugin \"ImageLocality\" already registered as \"ScorePlugin\"",
        ),
        (plugins(json!({"bind": disabled("*")})), "at least one bind plugin is needed"),
        (plugins(json!({"queueSort": disabled("*")})), "at least one queue sort plugin is needed"),
        (
            plugins(json!({"preFilter": disabled("NodePorts")})),
            "\"NodePorts\" is enabled for filter and cannot be disabled for preFilter",
        ),
        (
            plugins(json!({"filter": enabled("EBSLimits")})),
            "profiles[0].plugins.filter.enabled[0]: Invalid value: \"EBSLimits\": was invalid in version",
        ),
        (config("Mine", json!({"a": 1})), "profiles[0].pluginConfig[0].name: Not found: \"Mine\""),
        (config("NodeName", json!({"a": 1})), "decoding args for plugin \"NodeName\": it takes none"),
        (
            config("NodeAffinity", json!({"kind": "NodeResourcesFitArgs"})),
            "args for plugin NodeAffinity were not of type",
        ),
        (
            config("VolumeBinding", json!({"bindTimeout": 1})),
            "decoding args for plugin \"VolumeBinding\": strict decoding error: unknown field \"bindTimeout\"",
        ),
        (
            config("VolumeBinding", json!({"bindTimeoutSeconds": -1})),
            "profiles[0].pluginConfig[0].args.bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds",
        ),
        (config("InterPodAffinity", json!({"hardPodAffinityWeight": 101})), "not in valid range [0, 100]"),
        (
            config(
                "DefaultPreemption",
                json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0}),
            ),
            "cannot be zero at the same time as minCandidateNodesAbsolute",
        ),
        (
            fit(json!({"type": "Best"})),
            "scoringStrategy.type: Unsupported value: \"Best\": supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"",
        ),
        (
            fit(json!({"type": "RequestedToCapacityRatio"})),
            "scoringStrategy.requestedToCapacityRatio: Required value: must be specified",
        ),
        (
            fit(json!({"type": "LeastAllocated", "resources": [{"name": "cpu", "weight": 101}]})),
            "resource weight of cpu not in valid range (0, 100]",
        ),
        (
            fit(json!({"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape":
                [{"utilization": 5, "score": 1}, {"utilization": 5, "score": 11}]}})),
            "shape[1].utilization: Invalid value: 5: values must be sorted in increasing order",
        ),
        (
            config(
                "PodTopologySpread",
                json!({"defaultConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Never", "labelSelector": {}}]}),
            ),
            "defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
        ),
        (
            config("NodeResourcesBalancedAllocation", json!({"resources": [{"name": "cpu", "weight": 2}]})),
            "resources[0].weight: Invalid value: 2: must be 1",
        ),
        (
            json!({"extenders": [{"urlPrefix": "http://x", "prioritizeVerb": "p"}]}),
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            json!({"extenders": [{"bindVerb": "b"}, {"bindVerb": "b"}]}),
            "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind",
        ),
        (
            json!({"extenders": [{"managedResources": [{"name": "cpu"}]}]}),
            "extenders[0].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended resource name",
        ),
    ] {
        let said = fault(more.clone());
        assert!(said.contains(why), "{more}\n{said}");
    }
}

#[test]
fn extenders_say_what_they_take_part_in() {
    let settings = Settings::read(&file(json!({"extenders": [
        {"urlPrefix": "http://127.0.0.1:9/x", "filterVerb": "filter", "httpTimeout": "1m1.5s", "ignorable": true,
            "managedResources": [{"name": "x.io/gpu", "ignoredByScheduler": true}, {"name": "x.io/nic"}]},
        {"urlPrefix": "https://127.0.0.1:9", "enableHTTPS": true, "weight": 2, "prioritizeVerb": "score"},
    ]})));
    let settings = settings.unwrap();
    let [first, second] = settings.extenders.as_slice() else { panic!("two extenders") };
    assert_eq!(first.timeout, Duration::from_millis(61_500));
    assert!(first.ignorable && first.tls.is_none());
    assert_eq!(first.managed, ["x.io/gpu", "x.io/nic"]);
    assert_eq!((second.timeout, second.weight), (EXTENDER_PATIENCE, 2));
    assert!(!second.tls.as_ref().unwrap().insecure);
    let ignored = ["x.io/gpu", "x.io/nic"].map(|name| settings.profiles[0].ignores(name));
    assert_eq!(ignored, [true, false], "the extender counts it");
}
