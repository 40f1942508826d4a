//! Who gets in where: every route of the table, with every kind of token.

use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::json;
use vm::api::table::{self, Door, Route};

use super::api_fixture::{Bench, Reply, WRONG_TOKENS, config};

const VM: &str = "ud-1";

/// A request to a route that would be good.
async fn ask(bench: &Bench, route: &Route, token: Option<&str>, from: &str) -> Reply {
    bench.vm(VM).await;
    let query = if route.path.ends_with("/wait") { "?state=CREATED" } else { "" };
    let path = route.path.replace("{id}", VM).replace("{name}", "gc") + query;
    let ask = bench.ask(route.method, &path).from(from);
    let ask = match token {
        Some(token) => ask.token(token),
        None => ask,
    };
    let body = match route.path.rsplit('/').next() {
        Some("vms" | "CreateVm") => json!({ "config": config() }),
        Some("ListVms") => json!({}),
        Some(_) if is_call(route) => json!({ "vmId": VM }),
        Some("tokens") => json!({ "name": "x", "role": "operator" }),
        _ => json!({}),
    };
    match (route.method, route.path) {
        ("PUT", _) | (_, "/v1/vms/{id}/console") => ask.body("x").await,
        ("GET", _) => ask.send().await,
        _ => ask.json(&body).await,
    }
}

fn is_call(route: &Route) -> bool {
    route.path.contains("VmService")
}

fn refused(route: &Route, who: &str, reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{who} at {route:?}: {}", reply.text);
    let code = match (is_call(route), code) {
        (false, code) => code,
        (true, "token") => "unauthenticated",
        (true, "token_denied") => "permission_denied",
        (true, _) => "not_found",
    };
    assert_eq!(reply.code(), code, "{who} at {route:?}");
    assert_eq!(reply.headers.contains_key("www-authenticate"), status == 401, "{who} at {route:?}");
}

fn let_in(route: &Route, who: &str, reply: &Reply) {
    assert!(!matches!(reply.status, 401 | 403 | 429 | 500..), "{who} at {route:?}: {} {}", reply.status, reply.text);
}

#[tokio::test]
async fn every_route_has_its_door() {
    for route in table::all() {
        let bench = Bench::start().await;
        let wrong = format!("cvm_0123456789ab_{}", "0".repeat(64));
        let outsiders = [
            ("nobody", None),
            ("a wrong token", Some(wrong.as_str())),
            ("no token at all", Some("x")),
            ("an expired token", Some(&bench.expired)),
            ("a revoked token", Some(&bench.revoked)),
            ("a developer's token", Some("dev_customer_acme")),
        ];
        let (customer, foreign, operator) = (&bench.customer, &bench.foreign, &bench.operator);
        match route.door {
            Door::Open => {
                for (who, token) in outsiders {
                    let_in(route, who, &ask(&bench, route, token, "192.0.2.1").await);
                }
            }
            Door::Loopback => {
                let_in(route, "this machine", &ask(&bench, route, None, "127.0.0.1").await);
                for token in [None, Some(operator.as_str())] {
                    let reply = ask(&bench, route, token, "192.0.2.1").await;
                    refused(route, "another machine", &reply, 403, "loopback_only");
                }
            }
            Door::Customer | Door::Operator => {
                for (who, token) in outsiders {
                    refused(route, who, &ask(&bench, route, token, "192.0.2.1").await, 401, "token");
                }
                let is_about_one = route.path.contains("{id}") || (is_call(route) && !route.path.ends_with("CreateVm"));
                let reply = ask(&bench, route, Some(foreign), "192.0.2.1").await;
                if route.door == Door::Operator {
                    refused(route, "a customer", &reply, 403, "token_denied");
                    let reply = ask(&bench, route, Some(customer), "192.0.2.1").await;
                    refused(route, "a customer", &reply, 403, "token_denied");
                } else if is_about_one && !route.path.ends_with("ListVms") {
                    refused(route, "another customer", &reply, 404, "vm_not_found");
                } else {
                    let_in(route, "another customer", &reply);
                }
                if route.door == Door::Customer {
                    let_in(route, "the customer", &ask(&bench, route, Some(customer), "192.0.2.1").await);
                }
                let_in(route, "an operator", &ask(&bench, route, Some(operator), "192.0.2.1").await);
            }
        }
    }
}

#[tokio::test]
async fn developers_tokens_are_let_in_only_when_told_so() {
    for route in table::all().filter(|route| matches!(route.door, Door::Customer | Door::Operator)) {
        let bench = Bench::with(true, true).await;
        let reply = ask(&bench, route, Some("dev_customer_acme"), "192.0.2.1").await;
        if route.door == Door::Operator {
            refused(route, "a developer", &reply, 403, "token_denied");
        } else {
            let_in(route, "a developer", &reply);
        }
        let reply = ask(&bench, route, Some("dev_customer_x,customer_id=y"), "192.0.2.1").await;
        refused(route, "nonsense", &reply, 401, "token");
    }
}

/// What belongs to others looks exactly as what is not there.
#[tokio::test]
async fn foreign_vms_are_not_there() {
    let bench = Bench::start().await;
    bench.vm(VM).await;
    for (method, suffix) in [("GET", ""), ("DELETE", ""), ("POST", "/boot"), ("GET", "/logs"), ("GET", "/events")] {
        let of = async |id: &str| {
            let path = format!("/v1/vms/{id}{suffix}");
            let reply = bench.ask(method, &path).token(&bench.foreign).send().await;
            (reply.status, reply.text.replace(id, "ID"))
        };
        assert_eq!(of(VM).await, of("ud-2").await, "{method} {suffix}");
    }
    let list = bench.get("/v1/vms").token(&bench.foreign).send().await;
    assert_eq!(list.value(), json!({ "vms": [], "next_page_token": "", "total_count": 0 }));
    let events = bench.get("/v1/events").token(&bench.foreign).send().await;
    assert_eq!(events.value()["events"], json!([]));
    assert_eq!(bench.get("/v1/vms").token(&bench.operator).send().await.value()["total_count"], 1);
}

/// What went wrong on the host is told to a customer without saying where, and of others nothing at all.
#[tokio::test]
async fn a_customer_learns_nothing_of_the_host_and_of_others() {
    let bench = Bench::start().await;
    bench.vm(VM).await;
    let path = format!("/v1/vms/{VM}");
    bench.host.refuse("jail", 1);
    let boot = bench.ask("POST", &format!("{path}/boot")).token(&bench.customer).send().await;
    let told = async |path: &str, token: &str| bench.get(path).token(token).send().await.text;
    let events = format!("{path}/events");
    for text in [boot.text, told(&path, &bench.customer).await, told(&events, &bench.customer).await] {
        assert!(text.contains("jail was refused") && !text.contains("/played/"), "{text}");
    }
    for path in ["/v1/vms", "/v1/events"] {
        assert!(!told(path, &bench.customer).await.contains("/played/"), "{path}");
    }
    for path in [&path, &events] {
        assert!(told(path, &bench.operator).await.contains("/played/jail"), "{path}");
    }
    let create = async |token: &str| {
        let reply = bench.post("/v1/vms").token(token).json(&json!({ "config": config(), "vm_id": VM })).await;
        (reply.status, reply.value()["detail"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(create(&bench.customer).await, (409, format!("VM {VM} is there already")));
    assert_eq!(create(&bench.foreign).await, (409, format!("the id {VM} cannot be had")));
}

#[tokio::test]
async fn whose_a_new_vm_is() {
    let bench = Bench::start().await;
    let of = async |token: &str, customer: Option<&str>| {
        let mut body = json!({ "config": config() });
        if let Some(customer) = customer {
            body["customer_id"] = json!(customer);
        }
        let reply = bench.post("/v1/vms").token(token).json(&body).await;
        (reply.status, reply.value()["customer_id"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(of(&bench.customer, None).await, (201, "acme".to_owned()));
    assert_eq!(of(&bench.customer, Some("acme")).await, (201, "acme".to_owned()));
    assert_eq!(of(&bench.customer, Some("other")).await, (403, String::new()));
    assert_eq!(of(&bench.operator, Some("other")).await, (201, "other".to_owned()));
}

#[tokio::test]
async fn too_many_wrong_tokens_are_answered_with_429_and_good_ones_still_pass() {
    let bench = Bench::start().await;
    for _ in 0..WRONG_TOKENS {
        bench.get("/v1/vms").token("x").send().await.is(StatusCode::UNAUTHORIZED);
    }
    let reply = bench.get("/v1/vms").token("x").send().await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limit_exceeded"));
    assert!(reply.headers.contains_key("retry-after"));
    bench.get("/v1/vms").token(&bench.customer).send().await.is(StatusCode::OK);
    bench.get("/v1/vms").token("x").from("192.0.2.7").send().await.is(StatusCode::UNAUTHORIZED);
    let text = bench.metrics.render(None).1;
    assert!(text.contains(&format!("unkey_metald_login_failures_total {}", WRONG_TOKENS + 2)), "{text}");
}

#[tokio::test]
async fn tokens_are_made_listed_and_ended_and_their_text_is_told_once() {
    let bench = Bench::start().await;
    let body = json!({ "name": "ci", "role": "customer", "customer_id": "acme", "expires_at": "2027-01-01T00:00:00Z" });
    let made = bench.post("/v1/tokens").token(&bench.operator).json(&body).await;
    made.is(StatusCode::CREATED);
    let made = made.value();
    let text = made["token"].as_str().unwrap().to_owned();
    bench.get("/v1/vms").token(&text).send().await.is(StatusCode::OK);
    let listed = bench.get("/v1/tokens").token(&bench.operator).send().await;
    let secret = secrecy::SecretString::from(text.clone());
    assert!(!listed.text.contains(secret.expose_secret().rsplit('_').next().unwrap()));
    let path = format!("/v1/tokens/{}", made["id"].as_str().unwrap());
    bench.ask("DELETE", &path).token(&bench.operator).send().await.is(StatusCode::NO_CONTENT);
    bench.ask("DELETE", &path).token(&bench.operator).send().await.is(StatusCode::NOT_FOUND);
    bench.get("/v1/vms").token(&text).send().await.is(StatusCode::UNAUTHORIZED);
    for (body, code) in [
        (json!({ "name": "x", "role": "customer" }), "invalid_request"),
        (json!({ "name": "x", "role": "operator", "customer_id": "acme" }), "invalid_request"),
        (json!({ "name": "x\n", "role": "operator" }), "invalid_request"),
        (json!({ "name": "x", "role": "root" }), "invalid_request"),
        (json!({ "name": "x", "role": "operator", "expires_at": "2020-01-01T00:00:00Z" }), "invalid_request"),
    ] {
        let reply = bench.post("/v1/tokens").token(&bench.operator).json(&body).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{body}");
    }
    let actions: Vec<_> = bench
        .audit()
        .into_iter()
        .map(|entry| format!("{} {} {}", entry.action, entry.subject.unwrap_or_default(), entry.outcome))
        .collect();
    let id = made["id"].as_str().unwrap();
    assert_eq!(actions[0], format!("token.create {id} done"));
    assert_eq!(actions[1], format!("token.revoke {id} done"));
    let file = std::fs::read_to_string(bench.directory.path().join(vm::audit::FILE)).unwrap();
    assert!(!file.contains(&text) && !file.contains("cvm_"));
}
