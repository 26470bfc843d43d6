//! Expressions that pick devices.

use cel::{Attribute, Device, DeviceSelector, SELECTOR_COST};

fn device() -> Device<'static> {
    Device {
        driver: "gpu.example.com",
        allow_multiple_allocations: true,
        attributes: vec![
            ("model", Attribute::Text("A100")),
            ("other.example.com/index", Attribute::Int(3)),
            ("ecc", Attribute::Bool(true)),
            ("driverVersion", Attribute::Version("1.10.3")),
        ],
        capacity: vec![
            ("memory", "40Gi".parse().unwrap()),
            ("other.example.com/lanes", "16".parse().unwrap()),
        ],
    }
}

fn picks(expression: &str) -> Result<bool, String> {
    let selector = DeviceSelector::compile(expression).map_err(|fault| fault.to_string())?;
    assert!(selector.max_cost() <= SELECTOR_COST, "{expression} costs {}", selector.max_cost());
    selector.picks(&device()).map_err(|error| error.to_string())
}

#[test]
fn a_device_is_seen_by_domains() {
    for (expression, want) in [
        (r#"device.driver == "gpu.example.com""#, Ok(true)),
        (r#"device.attributes["gpu.example.com"].model == "A100""#, Ok(true)),
        (r#"device.attributes["other.example.com"].index > 3"#, Ok(false)),
        (r#"device.attributes["gpu.example.com"].ecc"#, Ok(true)),
        (r#"device.attributes["gpu.example.com"].driverVersion.isGreaterThan(semver("1.9.0"))"#, Ok(true)),
        (r#"device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) >= 0"#, Ok(true)),
        (r#"device.capacity["other.example.com"].lanes == quantity("8")"#, Ok(false)),
        ("device.allowMultipleAllocations", Ok(true)),
        // A domain that is not there is empty.
        (r#""model" in device.attributes["gpu.example.com"]"#, Ok(true)),
        (r#""model" in device.attributes["nobody.example.com"]"#, Ok(false)),
        (r#""nobody.example.com" in device.attributes"#, Ok(false)),
        (r#"has(device.attributes["nobody.example.com"].model)"#, Ok(false)),
        (
            r#"cel.bind(gpu, device.attributes["gpu.example.com"], gpu.ecc && gpu.model.startsWith("A"))"#,
            Ok(true),
        ),
        (r#"device.attributes["nobody.example.com"].model == "x""#, Err("no such key: model")),
        (r#"device.attributes["gpu.example.com"].model"#, Err("could not be converted to bool")),
        ("device.name == 'x'", Err("compilation failed: ERROR: <input>:1:7: undefined field 'name'")),
        ("device.driver", Err("must evaluate to bool or the unknown type, not string")),
    ] {
        match (picks(expression), want) {
            (Ok(is), Ok(want)) => assert_eq!(is, want, "{expression}"),
            (Err(why), Err(want)) => assert!(why.contains(want), "{expression}: {why}"),
            (is, want) => panic!("{expression}: {is:?} instead of {want:?}"),
        }
    }
}

#[test]
fn what_may_cost_too_much_is_known_before() {
    let nested = r#"device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a + b + c + d != ""))))"#;
    assert!(DeviceSelector::compile(nested).unwrap().max_cost() > SELECTOR_COST);
    let unknown = Device { attributes: vec![("x", Attribute::Unknown)], ..device() };
    let why = DeviceSelector::compile("true").unwrap().picks(&unknown).unwrap_err().to_string();
    assert_eq!(why, "attribute x: unsupported attribute value");
}
