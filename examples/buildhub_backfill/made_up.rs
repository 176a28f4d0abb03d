//! A bucket with builds: keys and bodies as Mozilla's has them.

use serde_json::json;

const LOCALES: [&str; 5] = ["ach", "ca", "en-US", "ja-JP-mac", "zh-TW"];
const PLATFORMS: [(&str, &str, &str); 3] = [
    ("linux-x86_64", "linux", "x86_64-pc-linux-gnu"),
    ("mac", "mac", "x86_64-apple-darwin"),
    ("win64", "win", "x86_64-pc-mingw32"),
];
/// What lies beside each `buildhub.json`, and is nobody's business.
const SIBLINGS: [&str; 7] = [
    "Firefox Setup.exe",
    "firefox.complete.mar",
    "firefox.complete.mar.asc",
    "firefox.dmg",
    "firefox.tar.bz2",
    "xpi/de.xpi",
    "xpi/fr.xpi",
];

fn folder(number: usize) -> String {
    let (locale, (platform, ..)) = (LOCALES[number % 5], PLATFORMS[number / 5 % 3]);
    format!("pub/firefox/candidates/{}.0b{}-candidates/build1/{platform}/{locale}", 50 + number / 300, number / 15 % 20)
}

/// The key of this build.
pub(crate) fn key(number: usize) -> String {
    format!("{}/buildhub.json", folder(number))
}

/// The build itself; its `edition` is the build's number.
pub(crate) fn body(number: usize, edition: u32) -> String {
    let (locale, (platform, os, target)) = (LOCALES[number % 5], PLATFORMS[number / 5 % 3]);
    let version = format!("{}.0b{}", 50 + number / 300, number / 15 % 20);
    let (day, second) = (1 + number % 28, number % 60);
    let build = json!({
        "build": {
            "as": "$(CC)",
            "cc": "/builds/worker/workspace/build/src/clang/bin/clang -std=gnu99",
            "cxx": "/builds/worker/workspace/build/src/clang/bin/clang++ -std=gnu++14",
            "date": format!("2018-05-{day:02}T16:07:{second:02}Z"),
            "host": "x86_64-pc-linux-gnu",
            "id": format!("201805{day:02}1607{second:02}"),
            "number": edition,
            "target": target,
        },
        "source": {
            "product": "firefox",
            "repository": "https://hg.mozilla.org/releases/mozilla-beta",
            "revision": format!("{number:040x}"),
            "tree": "releases/mozilla-beta",
        },
        "target": { "channel": "beta", "locale": locale, "os": os, "platform": platform, "version": version },
        "download": {
            "date": format!("2018-05-{day:02}T18:02:{second:02}Z"),
            "mimetype": "application/octet-stream",
            "size": 50_000_000 + number,
            "url": format!("https://archive.mozilla.org/{}/firefox", folder(number)),
        },
    });
    format!("{build:#}")
}

/// So many builds, each with seven other objects beside it.
pub(crate) fn objects(builds: usize) -> impl Iterator<Item = (String, String)> {
    (0..builds).flat_map(|number| {
        let siblings = SIBLINGS.map(|name| (format!("{}/{name}", folder(number)), String::new()));
        siblings.into_iter().chain([(key(number), body(number, 1))])
    })
}
