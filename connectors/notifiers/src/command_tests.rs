//! Exit codes decide, and a program that hangs holds nobody.

use tidewatch_model::AlertState;

use super::*;
use crate::testing::notice;

fn run(arguments: &[&str]) -> Delivery {
    let arguments = arguments.iter().map(|argument| (*argument).to_string()).collect();
    CommandNotifier::new("pager", arguments, Some(Span::millis(500)), "").notify(&notice(AlertState::Firing))
}

#[test]
fn exit_codes_decide() {
    let is_body = "import json, os, sys; body = json.load(sys.stdin); \
        sys.exit(0 if body['version'] == '4' and os.environ['TIDEWATCH_NOTICE_ID'] == 'abc' else 1)";
    assert_eq!(run(&["python3", "-c", is_body]), Delivery::Delivered);
    assert!(matches!(run(&["sh", "-c", "exit 75"]), Delivery::Retry { perhaps: true, .. }));
    assert_eq!(run(&["false"]), Delivery::GiveUp { error: "pager: exit status: 1".to_string() });
    assert!(
        matches!(run(&["sleep", "60"]), Delivery::Retry { error, .. } if error.contains("did not end within 500ms"))
    );
    assert!(matches!(run(&["/no/such/program"]), Delivery::GiveUp { error } if error.contains("No such file")));
}
