//! Which plugins there are, what they do, and which of them a profile has
//! (kubernetes/kubernetes, `pkg/scheduler/framework/runtime/framework.go`, `pkg/scheduler/apis/config/v1/default_plugins.go`).
//!
//! Our plugins are no objects behind interfaces: each is a part of the one decision. A profile leaves parts out.

use serde::Deserialize;

/// Where a plugin can take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

impl Point {
    pub(crate) const ALL: [Self; 12] = [
        Self::PreEnqueue,
        Self::QueueSort,
        Self::PreFilter,
        Self::Filter,
        Self::PostFilter,
        Self::PreScore,
        Self::Score,
        Self::Reserve,
        Self::Permit,
        Self::PreBind,
        Self::Bind,
        Self::PostBind,
    ];

    /// The name of the interface.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PreEnqueue => "PreEnqueue",
            Self::QueueSort => "QueueSort",
            Self::PreFilter => "PreFilter",
            Self::Filter => "Filter",
            Self::PostFilter => "PostFilter",
            Self::PreScore => "PreScore",
            Self::Score => "Score",
            Self::Reserve => "Reserve",
            Self::Permit => "Permit",
            Self::PreBind => "PreBind",
            Self::Bind => "Bind",
            Self::PostBind => "PostBind",
        }
    }
}

macro_rules! plugins {
    ($($name:ident $weight:literal: $($point:ident)*;)*) => {
        /// What takes part in decisions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Plugin {
            $($name,)*
        }

        impl Plugin {
            /// All that a profile has by default, in the order of their turn.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Its weight by default.
            fn weight(self) -> i64 {
                match self {
                    $(Self::$name => $weight,)*
                }
            }

            fn points(self) -> &'static [Point] {
                match self {
                    $(Self::$name => &[$(Point::$point,)*],)*
                }
            }
        }
    };
}

plugins! {
    SchedulingGates 0: PreEnqueue;
    PrioritySort 0: QueueSort;
    NodeUnschedulable 0: Filter;
    NodeName 0: Filter;
    TaintToleration 3: Filter PreScore Score;
    NodeAffinity 2: PreFilter Filter PreScore Score;
    NodePorts 0: PreFilter Filter;
    NodeResourcesFit 1: PreFilter Filter PreScore Score;
    VolumeRestrictions 0: PreFilter Filter;
    NodeVolumeLimits 0: PreFilter Filter;
    VolumeBinding 0: PreFilter Filter Reserve PreBind;
    VolumeZone 0: PreFilter Filter;
    PodTopologySpread 2: PreFilter Filter PreScore Score;
    InterPodAffinity 2: PreFilter Filter PreScore Score;
    DynamicResources 2: PreEnqueue PreFilter Filter PostFilter Score Reserve PreBind;
    DefaultPreemption 0: PostFilter;
    NodeResourcesBalancedAllocation 1: PreScore Score;
    ImageLocality 1: Score;
    DefaultBinder 0: Bind;
    NodeDeclaredFeatures 0: PreFilter Filter;
    GangScheduling 0: PreEnqueue Permit;
}

impl Plugin {
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plugin| plugin.name() == name)
    }

    fn takes_part(self, point: Point) -> bool {
        self.points().contains(&point)
    }
}

/// The plugins of a profile, as the file names them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PluginsText {
    pub(super) multi_point: PluginSet,
    pre_enqueue: PluginSet,
    pub(super) queue_sort: PluginSet,
    pre_filter: PluginSet,
    filter: PluginSet,
    post_filter: PluginSet,
    pre_score: PluginSet,
    score: PluginSet,
    reserve: PluginSet,
    permit: PluginSet,
    pre_bind: PluginSet,
    bind: PluginSet,
    post_bind: PluginSet,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct PluginSet {
    pub(super) enabled: Vec<PluginText>,
    pub(super) disabled: Vec<PluginText>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct PluginText {
    pub(super) name: String,
    weight: Option<i64>,
}

impl PluginSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|plugin| plugin.name == name || plugin.name == "*")
    }

    fn enables(&self, name: &str) -> Option<&PluginText> {
        self.enabled.iter().find(|plugin| plugin.name == name)
    }
}

impl PluginsText {
    /// The sets by their names in the file.
    pub(super) fn sets(&self) -> [(&'static str, &PluginSet); 13] {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = Point::ALL.map(|point| (field(point), self.at(point)));
        [a, b, c, d, e, f, g, h, i, j, k, l, ("multiPoint", &self.multi_point)]
    }

    fn at(&self, point: Point) -> &PluginSet {
        match point {
            Point::PreEnqueue => &self.pre_enqueue,
            Point::QueueSort => &self.queue_sort,
            Point::PreFilter => &self.pre_filter,
            Point::Filter => &self.filter,
            Point::PostFilter => &self.post_filter,
            Point::PreScore => &self.pre_score,
            Point::Score => &self.score,
            Point::Reserve => &self.reserve,
            Point::Permit => &self.permit,
            Point::PreBind => &self.pre_bind,
            Point::Bind => &self.bind,
            Point::PostBind => &self.post_bind,
        }
    }
}

/// A point's name in the file.
fn field(point: Point) -> &'static str {
    match point {
        Point::PreEnqueue => "preEnqueue",
        Point::QueueSort => "queueSort",
        Point::PreFilter => "preFilter",
        Point::Filter => "filter",
        Point::PostFilter => "postFilter",
        Point::PreScore => "preScore",
        Point::Score => "score",
        Point::Reserve => "reserve",
        Point::Permit => "permit",
        Point::PreBind => "preBind",
        Point::Bind => "bind",
        Point::PostBind => "postBind",
    }
}

/// Which plugins take part where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// For each point, a bit for each plugin.
    at: [u32; Point::ALL.len()],
    weights: [i64; Plugin::ALL.len()],
}

impl Parts {
    /// Whether a plugin takes part.
    pub(crate) fn has(&self, point: Point, plugin: Plugin) -> bool {
        self.at[point as usize] & (1 << plugin as u32) != 0
    }

    /// How much a plugin's score counts; nothing if it does not take part.
    pub(crate) fn weight(&self, plugin: Plugin) -> i64 {
        self.weights[plugin as usize]
    }

    /// What a profile's plugins come to.
    pub(super) fn of(text: &PluginsText) -> Result<Self, String> {
        let many = merged(&text.multi_point);
        let mut parts = Self { at: [0; Point::ALL.len()], weights: [0; Plugin::ALL.len()] };
        for plugin in &many {
            if Plugin::of(&plugin.name).is_none() {
                return Err(format!("MultiPointPlugin {:?} does not exist", plugin.name));
            }
        }
        for point in Point::ALL {
            let set = text.at(point);
            let own = set.enabled.iter().map(|plugin| (plugin, true));
            let from_many = many.iter().filter(|plugin| {
                let takes_part = Plugin::of(&plugin.name).is_some_and(|p| p.takes_part(point));
                // What is named for the point itself overrules what is said for all of them.
                takes_part && !set.disables(&plugin.name) && set.enables(&plugin.name).is_none()
            });
            for (text, named) in own.chain(from_many.map(|plugin| (plugin, false))) {
                let interface = point.name();
                let Some(plugin) = Plugin::of(&text.name) else {
                    return Err(format!("{interface}Plugin {:?} does not exist", text.name));
                };
                if named && !plugin.takes_part(point) {
                    return Err(format!("plugin {:?} does not extend {interface}Plugin plugin", text.name));
                }
                if parts.has(point, plugin) {
                    return Err(format!(
                        "plugin {:?} already registered as \"{interface}Plugin\"",
                        text.name
                    ));
                }
                parts.at[point as usize] |= 1 << plugin as u32;
                if point == Point::Score {
                    let weight = text.weight.filter(|weight| *weight != 0);
                    parts.weights[plugin as usize] = weight.unwrap_or(1);
                }
            }
        }
        parts.check().map(|()| parts)
    }

    /// A plugin that prepares itself at one point for another cannot do half of it.
    fn check(&self) -> Result<(), String> {
        for (point, before) in [
            (Point::Filter, Point::PreFilter),
            (Point::Score, Point::PreScore),
            (Point::Filter, Point::Reserve),
            (Point::Filter, Point::PreBind),
        ] {
            for plugin in Plugin::ALL.iter().copied().filter(|p| p.takes_part(before)) {
                if self.has(point, plugin) && !self.has(before, plugin) {
                    let (name, point, before) = (plugin.name(), field(point), field(before));
                    return Err(format!(
                        "plugin {name:?} is enabled for {point} and cannot be disabled for {before}"
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn sorts(&self) -> bool {
        self.has(Point::QueueSort, Plugin::PrioritySort)
    }

    pub(super) fn binds(&self) -> bool {
        self.has(Point::Bind, Plugin::DefaultBinder)
    }
}

/// The default plugins with what a profile says of all points at once (`mergePluginSet`).
fn merged(own: &PluginSet) -> Vec<PluginText> {
    let mut all = Vec::new();
    for plugin in Plugin::ALL.iter().filter(|plugin| !own.disables(plugin.name())) {
        let default = || PluginText { name: plugin.name().to_owned(), weight: Some(plugin.weight()) };
        all.push(own.enables(plugin.name()).cloned().unwrap_or_else(default));
    }
    for (n, plugin) in own.enabled.iter().enumerate() {
        // What has replaced a default is there already; what is named twice shows up as registered twice.
        let first = own.enabled.iter().position(|other| other.name == plugin.name) == Some(n);
        if !(first && all.iter().any(|known| known.name == plugin.name)) {
            all.push(plugin.clone());
        }
    }
    all
}
