//! What a browser makes of a page: Chromium without a window, for tests.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Debian's Chromium, or whichever there is.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser. Where there is none the test is left out: said in a line, and a failure where a CI runs.
///
/// # Panics
///
/// If there is none, and a CI runs.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let found = places.into_iter().find(|place| place.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "the CI has no Chromium");
        // Around the harness, which hides what a test that passes prints.
        std::io::stderr().write_all(b"there is no Chromium: the page is not tested in a browser\n").unwrap();
    }
    found
}

/// Runs it without a window, on a page in a file, and gives what it writes to stdout. It must have no complaint.
fn run(browser: &Path, folder: &Path, page: &Path, flags: &[&str]) -> String {
    let profile = tempfile::tempdir_in(folder).unwrap();
    let mut command = Command::new(browser);
    // It looks up no host and asks for no update: there is no network, and the page needs none.
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]);
    command.args(["--enable-logging=stderr", "--virtual-time-budget=2000", "--hide-scrollbars"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).args(flags);
    let Output { status, stdout, stderr } = command.arg(format!("file://{}", page.display())).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{stderr}");
    let complaints: Vec<&str> = stderr.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    String::from_utf8(stdout).unwrap()
}

/// A picture of the page, as PNG. What is written for it goes into `folder`.
///
/// # Panics
///
/// If the browser fails, or complains of the page.
pub fn picture(browser: &Path, folder: &Path, html: &str, size: (u32, u32), is_dark: bool) -> Vec<u8> {
    let (page, picture) = (folder.join("page.html"), folder.join("page.png"));
    fs::write(&page, html).unwrap();
    let (size, shot) = (format!("--window-size={},{}", size.0, size.1), format!("--screenshot={}", picture.display()));
    let dark =
        if is_dark { "--blink-settings=preferredColorScheme=0" } else { "--blink-settings=preferredColorScheme=1" };
    run(browser, folder, &page, &[&size, &shot, dark]);
    fs::read(&picture).unwrap()
}

/// What a script finds out about the page in a frame of that width: the page itself allows none. What is written for it
/// goes into `folder`.
///
/// # Panics
///
/// If the browser fails, or complains of the page.
pub fn measure(browser: &Path, folder: &Path, html: &str, width: u32, is_dark: bool) -> serde_json::Value {
    let attribute = html.replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!(
        "<iframe id=frame style=\"width: {width}px; height: 800px; border: 0\" srcdoc=\"{attribute}\"></iframe>"
    );
    let outer = format!("<!doctype html><title>-</title>{frame}<script>{MEASURE}</script>");
    let page = folder.join("measure.html");
    fs::write(&page, outer).unwrap();
    let dark =
        if is_dark { "--blink-settings=preferredColorScheme=0" } else { "--blink-settings=preferredColorScheme=1" };
    let document = run(browser, folder, &page, &["--dump-dom", dark, "--window-size=1400,900"]);
    let title = document.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>")).unwrap().0;
    serde_json::from_str(title).unwrap_or_else(|_| panic!("{title:?} of {}", &document[..document.len().min(2000)]))
}

const MEASURE: &str = r#"
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const channels = color => color.match(/[\d.]+/g).slice(0, 3).map(Number);
  const luminance = color => {
    const [r, g, b] = channels(color).map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = element => {
    for (; element; element = element.parentElement) {
      const color = view.getComputedStyle(element).backgroundColor;
      if (color !== 'rgba(0, 0, 0, 0)') return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const contrast = element => {
    const style = view.getComputedStyle(element);
    const color = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [luminance(color), luminance(background(element))].sort((a, b) => b - a);
    return (a + 0.05) / (b + 0.05);
  };
  const texts = [...page.querySelectorAll('h1, h2, h3, p, li, th, td, svg text')].filter(e => e.getClientRects().length);
  const charts = [...page.querySelectorAll('svg')].filter(e => e.getClientRects().length);
  const fills = [...page.querySelectorAll('svg polygon, svg polyline')].filter(e => e.getClientRects().length);
  document.title = JSON.stringify({
    width: view.innerWidth,
    scroll: page.documentElement.scrollWidth,
    texts: texts.length,
    contrast: Math.min(...texts.map(contrast)),
    small: Math.min(...[...page.querySelectorAll('svg text')].filter(e => e.getClientRects().length)
      .map(e => e.getBoundingClientRect().height)),
    charts: charts.length,
    // Black stands for none of the page's colours.
    unpainted: fills.filter(e => ['fill', 'stroke'].every(p =>
      ['none', 'rgb(0, 0, 0)'].includes(view.getComputedStyle(e)[p]) || /rgb\(0, 0, \d{1,2}\)/.test(view.getComputedStyle(e)[p]))).length,
    painted: fills.length,
    dark: view.matchMedia('(prefers-color-scheme: dark)').matches,
    headings: [...page.querySelectorAll('h1, h2')].map(e => e.textContent),
    unlabelled: [...page.querySelectorAll('[role=img], [role=region], section')]
      .filter(e => !(e.ariaLabel || page.getElementById(e.getAttribute('aria-labelledby')))).length,
  });
};
"#;
