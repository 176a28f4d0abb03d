use serde_json::{Value, json};

use super::{Answer, Asked};

/// Statistics of an activity, as the API names them.
const STATISTICS: [&str; 11] = [
    "fastestCompletionMsForActivity",
    "activityCompletions",
    "activityKills",
    "activityAssists",
    "activityDeaths",
    "activitySecondsPlayed",
    "activityWins",
    "activityPrecisionKills",
    "activityGatesHit",
    "activityBestSingleGameScore",
    "activitySpecialActions",
];

/// Answers `/Platform/Destiny2/{type}/Account/{account}/Character/{character}/Stats/AggregateActivityStats/` as bungie.net
/// does, to whom the header `X-API-Key` says `key`: activities with eleven statistics each, `statistics(character)` of them
/// in all, made up by the number of the character. Everything else is an error under status 200, 404 or 503 with
/// `ErrorCode`, as there.
pub fn bungie(
    key: &str,
    statistics: impl Fn(u64) -> usize + Send + Sync + 'static,
) -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    let key = key.to_owned();
    move |asked| {
        if asked.header("x-api-key") != Some(&key) {
            return error(2101, "ApiInvalidOrExpiredKey", "API key is missing or was not found.");
        }
        let segments = asked.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            [
                "Platform",
                "Destiny2",
                kind,
                "Account",
                account,
                "Character",
                character,
                "Stats",
                "AggregateActivityStats",
            ] => {
                let numbers = (kind.parse::<i32>(), account.parse::<u64>(), character.parse::<u64>());
                let (Ok(_), Ok(_), Ok(character)) = numbers else {
                    return error(7, "ParameterParseFailure", "Unable to parse your parameters.");
                };
                bungie_statistics(character, statistics(character))
            }
            _ => Answer::text("text/html", "<html>404 - File or directory not found.</html>").status(404),
        }
    }
}

/// What [`bungie()`] answers for this character, if it has so many statistics.
pub fn bungie_statistics(character: u64, statistics: usize) -> Answer {
    Answer::json(json!({
        "Response": {"activities": activities(character, statistics)},
        "ErrorCode": 1,
        "ThrottleSeconds": 0,
        "ErrorStatus": "Success",
        "Message": "Ok",
        "MessageData": {},
    }))
}

fn error(code: u32, status: &str, message: &str) -> Answer {
    Answer::json(json!({
        "ErrorCode": code,
        "ThrottleSeconds": 0,
        "ErrorStatus": status,
        "Message": message,
        "MessageData": {},
    }))
}

fn activities(character: u64, statistics: usize) -> Vec<Value> {
    let mut random = fastrand::Rng::with_seed(character);
    let mut activities = Vec::new();
    let mut left = statistics;
    while left > 0 {
        let here = left.min(STATISTICS.len());
        let values = STATISTICS[..here].iter().map(|name| {
            let value = random.u32(0..100_000);
            let value = json!({
                "statId": name,
                "basic": {"value": f64::from(value), "displayValue": value.to_string()},
                "activityId": random.u32(..).to_string(),
            });
            ((*name).to_owned(), value)
        });
        let values = Value::Object(values.collect());
        activities.push(json!({"activityHash": random.u32(..), "values": values}));
        left -= here;
    }
    activities
}
