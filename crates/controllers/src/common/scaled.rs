use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// So many of `total`: a number, or a percentage (kubernetes/apimachinery, `pkg/util/intstr/intstr.go`,
/// `GetScaledValueFromIntOrPercent`).
pub(crate) fn scaled(value: &IntOrString, total: i32, round: fn(f64) -> f64) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: f64 = text.trim_end_matches('%').parse().unwrap_or(0.0);
            round(f64::from(total) * percent / 100.0) as i32
        }
    }
}
