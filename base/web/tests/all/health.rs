use serde_json::json;
use web::{Check, health_routes};

use crate::wire::{framed, get};

#[tokio::test]
async fn readiness_names_what_fails() {
    let good = || Check::new("database", || async { Ok(()) });
    let served = framed(|_| health_routes(vec![good()])).await;
    let healthy = get(served.address, "/healthz").await;
    assert_eq!((healthy.status, healthy.json()), (200, json!({"ok": true})));
    let ready = get(served.address, "/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true})));

    let bad = Check::new("disk", || async { Err("no room in /var/lib/shoal/tasks".to_owned()) });
    let served = framed(|_| health_routes(vec![good(), bad])).await;
    let answer = get(served.address, "/readyz").await;
    assert_eq!(answer.status, 503);
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer.json()).unwrap(), @r###"
    {
      "type": "/errors/not_ready",
      "title": "Service Unavailable",
      "status": 503,
      "detail": "not ready: disk",
      "code": "not_ready",
      "error": "not_ready",
      "message": "not ready: disk",
      "details": [
        {
          "path": "",
          "field": "disk",
          "code": "failed",
          "message": "no room in /var/lib/shoal/tasks"
        }
      ]
    }
    "###);
    assert_eq!(get(served.address, "/healthz").await.status, 200);
}
