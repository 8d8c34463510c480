//! `/metrics` read by a parser that forgives nothing: the text format 0.0.4 of
//! Prometheus, and its rules for names.

use std::collections::{BTreeMap, BTreeSet};

use daybook_client::{Client, Join};
use daybook_model::NewEvent;
use daybook_server::Config;

struct Family {
    kind: String,
    /// Suffix of the name, labels, value, in order.
    samples: Vec<(String, Vec<(String, String)>, f64)>,
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(good) && !text.contains("__")
}

/// `{a="x",b="y"}` and what follows it.
fn labels(text: &str) -> (Vec<(String, String)>, &str) {
    let Some(mut rest) = text.strip_prefix('{') else { return (Vec::new(), text) };
    let mut found = Vec::new();
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "label `{name}`");
        let (mut text, mut chars) = (String::new(), value.char_indices());
        let end = loop {
            match chars.next().expect("a label's value ends") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => text.push('\n'),
                    c @ ('\\' | '"') => text.push(c),
                    other => panic!("there is no escape `\\{other}`"),
                },
                (_, c) => text.push(c),
            }
        };
        found.push((name.to_owned(), text));
        rest = &value[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (found, rest.strip_prefix('}').expect("labels end in a brace")),
        }
    }
}

fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n') && !text.contains("\n\n") && !text.contains('\r'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").expect(line).split_once(' ').expect(line);
        assert!(is_name(name) && name.starts_with("daybook_") && help.ends_with('.'), "{line}");
        let (typed, kind) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
        assert_eq!(typed, name);
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let mut family = Family { kind: kind.to_owned(), samples: Vec::new() };
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let rest = sample.strip_prefix(name).unwrap_or_else(|| panic!("{sample} stands in {name}"));
            let at = rest.find(['{', ' ']).unwrap();
            let (labels, value) = labels(&rest[at..]);
            let value = value.strip_prefix(' ').unwrap();
            assert!(series.insert(sample.rsplit_once(' ').unwrap().0.to_owned()), "{sample} is there twice");
            family.samples.push((rest[..at].to_owned(), labels, value.parse().unwrap()));
        }
        assert!(families.insert(name.to_owned(), family).is_none(), "{name} is there twice");
    }
    families.iter().for_each(|(name, family)| check(name, family));
    families
}

fn check(name: &str, family: &Family) {
    if family.kind != "histogram" {
        assert!(family.samples.iter().all(|(suffix, ..)| suffix.is_empty()), "{name}");
        return;
    }
    let [buckets @ .., sum, count] = &family.samples[..] else { panic!("{name} has no sum and count") };
    assert_eq!((sum.0.as_str(), count.0.as_str()), ("_sum", "_count"));
    let mut before = (f64::NEG_INFINITY, 0.0);
    for (suffix, labels, value) in buckets {
        let [(le, end)] = &labels[..] else { panic!("{name}: {labels:?}") };
        assert_eq!((suffix.as_str(), le.as_str()), ("_bucket", "le"));
        let end = if end == "+Inf" { f64::INFINITY } else { end.parse().unwrap() };
        assert!(end > before.0 && *value >= before.1, "{name}: {labels:?} {value}");
        before = (end, *value);
    }
    assert_eq!(before, (f64::INFINITY, count.2), "{name}: the last bucket holds all");
}

#[tokio::test]
async fn a_strict_parser_reads_all_metrics_and_their_figures_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
    let server = daybook_server::start(config).await.unwrap();
    let bus = format!("http://{}", server.local_addr());
    let client = Client::builder(&bus).service("test").connect().await.unwrap();
    for i in 0..7 {
        client.publish(vec![NewEvent::new(format!("e{i}"), "T").subject("k")]).await.unwrap();
    }
    let odd = r#"we"ird\group"#;
    let _member = client.join(Join::new(odd, 10)).await.unwrap();
    let text = reqwest::get(format!("{bus}/metrics")).await.unwrap().text().await.unwrap();
    let families = parse(&text);
    let figure = |name: &str| families[name].samples[0].2;
    assert_eq!(figure("daybook_events_appended_total"), 7.0);
    assert_eq!((figure("daybook_takes_events"), figure("daybook_build_info")), (1.0, 1.0));
    assert!(figure("daybook_log_bytes") > 0.0 && figure("daybook_disk_free_bytes") > 0.0);
    assert_eq!(figure("daybook_index_memory_events"), 7.0);
    for (name, at_least) in
        [("daybook_append_duration_seconds", 7.0), ("daybook_fsync_duration_seconds", 1.0)]
    {
        let [.., sum, count] = &families[name].samples[..] else { panic!() };
        assert!(count.2 >= at_least && sum.2 > 0.0, "{name}: {}", count.2);
    }
    let groups = &families["daybook_group_lag_events"].samples;
    assert_eq!(groups[0].1, [("group".to_owned(), odd.to_owned())]);
    client.close().await;
    server.shutdown().await;
}
