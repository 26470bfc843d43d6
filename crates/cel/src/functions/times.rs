//! What calendars and clocks show (cel-go, `common/types/timestamp.go`, `duration.go`).

use super::{Call, Function};
use crate::error::{EvalError, Outcome};
use crate::value::Value;
use crate::value::time::Civil;

pub(super) const TABLE: &[Function] = &[
    Function(
        "getFullYear",
        Call::Plain(year),
        &["timestamp_to_year timestamp.() int", "timestamp_to_year_with_tz timestamp.(string) int"],
    ),
    Function(
        "getMonth",
        Call::Plain(month),
        &["timestamp_to_month timestamp.() int", "timestamp_to_month_with_tz timestamp.(string) int"],
    ),
    Function(
        "getDayOfYear",
        Call::Plain(day_of_year),
        &[
            "timestamp_to_day_of_year timestamp.() int",
            "timestamp_to_day_of_year_with_tz timestamp.(string) int",
        ],
    ),
    Function(
        "getDayOfMonth",
        Call::Plain(day_of_month),
        &[
            "timestamp_to_day_of_month timestamp.() int",
            "timestamp_to_day_of_month_with_tz timestamp.(string) int",
        ],
    ),
    Function(
        "getDate",
        Call::Plain(date),
        &[
            "timestamp_to_day_of_month_1_based timestamp.() int",
            "timestamp_to_day_of_month_1_based_with_tz timestamp.(string) int",
        ],
    ),
    Function(
        "getDayOfWeek",
        Call::Plain(day_of_week),
        &[
            "timestamp_to_day_of_week timestamp.() int",
            "timestamp_to_day_of_week_with_tz timestamp.(string) int",
        ],
    ),
    Function(
        "getHours",
        Call::Plain(hours),
        &[
            "timestamp_to_hours timestamp.() int",
            "timestamp_to_hours_with_tz timestamp.(string) int",
            "duration_to_hours duration.() int",
        ],
    ),
    Function(
        "getMinutes",
        Call::Plain(minutes),
        &[
            "timestamp_to_minutes timestamp.() int",
            "timestamp_to_minutes_with_tz timestamp.(string) int",
            "duration_to_minutes duration.() int",
        ],
    ),
    Function(
        "getSeconds",
        Call::Plain(seconds),
        &[
            "timestamp_to_seconds timestamp.() int",
            "timestamp_to_seconds_tz timestamp.(string) int",
            "duration_to_seconds duration.() int",
        ],
    ),
    Function(
        "getMilliseconds",
        Call::Plain(millis),
        &[
            "timestamp_to_milliseconds timestamp.() int",
            "timestamp_to_milliseconds_with_tz timestamp.(string) int",
            "duration_to_milliseconds duration.() int",
        ],
    ),
];

fn part<'a>(args: &[Value<'a>], of: fn(Civil) -> i64, unit: Option<i64>) -> Outcome<Value<'a>> {
    Ok(Value::Int(match (args, unit) {
        ([Value::Timestamp(t)], _) => of(t.civil(None)?),
        ([Value::Timestamp(t), Value::String(zone)], _) => of(t.civil(Some(zone))?),
        ([Value::Duration(d)], Some(unit)) => d.0 / unit,
        _ => return Err(EvalError::no_such_overload()),
    }))
}

fn year<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.year, None)
}

fn month<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.month - 1, None)
}

fn day_of_year<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.year_day, None)
}

fn day_of_month<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.day - 1, None)
}

fn date<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.day, None)
}

fn day_of_week<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.weekday, None)
}

fn hours<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.hour, Some(3_600_000_000_000))
}

fn minutes<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.minute, Some(60_000_000_000))
}

fn seconds<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| c.second, Some(1_000_000_000))
}

fn millis<'a>(args: &[Value<'a>]) -> Outcome<Value<'a>> {
    part(args, |c| i64::from(c.nanos / 1_000_000), Some(1_000_000))
}
