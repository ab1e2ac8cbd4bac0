//! Annotations: templates over an alert's labels and values, checked when the rule loads.

use std::cell::RefCell;
use std::sync::Arc;

use minijinja::value::{Object, ValueKind};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value as TemplateValue, escape_formatter};
use tidewatch_model::alert::Labels;
use tidewatch_model::value::headline;
use tidewatch_model::{Value, Values};

use crate::humanize::add_filters;
use crate::printf::add_printf;

/// Names that every template may use besides the rule's columns: all labels, all values, the first number, and the
/// functions and tests of the template language that count as names.
const ALWAYS: [&str; 5] = ["labels", "values", "value", "alertname", "loop"];

/// Checks a template against the names that it may use.
///
/// # Errors
/// What is wrong, in words: its syntax, or a name that is no column of the rule.
pub fn check(text: &str, known: &[&str]) -> Result<(), String> {
    let mut environment = Environment::new();
    add_printf(&mut environment);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let template = environment.template_from_str(text).map_err(|error| format!("template {text:?}: {error}"))?;
    let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
    unknown.retain(|name| {
        !known.contains(&name.as_str())
            && !ALWAYS.contains(&name.as_str())
            && environment.globals().all(|(global, _)| global != name)
    });
    unknown.sort();
    match unknown.first() {
        None => Ok(()),
        Some(name) => Err(format!(
            "template {text:?} uses '{name}', which is no column of the rule: expected one of {}",
            known.join(", ")
        )),
    }
}

thread_local! {
    /// Every template that was rendered, parsed: a fleet that falls ill fires the same rule a thousand times.
    static PARSED: RefCell<Environment<'static>> = RefCell::new({
        let mut environment = Environment::new();
        add_filters(&mut environment);
        add_printf(&mut environment);
        environment.set_formatter(|out, state, value| match f64::try_from(value.clone()) {
            Ok(number) if value.kind() == ValueKind::Number && !value.is_integer() => {
                escape_formatter(out, state, &TemplateValue::from(short(number)))
            }
            _ => escape_formatter(out, state, value),
        });
        // A template is called by its text, and one that ends like the name of a page is no page.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment
    });
}
/// Templates that are kept parsed; beyond it all are parsed anew.
const PARSED_TEMPLATES: usize = 20_000;

/// What templates say about one alert.
pub struct Context(TemplateValue);

/// Labels and values, of which a template mostly asks for one or two.
#[derive(Debug)]
struct Names {
    labels: Labels,
    values: Values,
}

impl Object for Names {
    fn get_value(self: &Arc<Self>, name: &TemplateValue) -> Option<TemplateValue> {
        let Names { labels, values } = self.as_ref();
        let named = values.iter().map(|(name, value)| (name.as_str(), template_value(value)));
        match name.as_str()? {
            "labels" => Some(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()),
            "values" => Some(named.collect()),
            "value" => match values.iter().find(|(known, _)| known == "value") {
                Some((_, text)) if text.as_f64().is_none() => Some(template_value(text)),
                _ => headline(values).map(TemplateValue::from),
            },
            name => labels.get(name).map(|value| TemplateValue::from(value.as_str())).or_else(|| {
                let value = values.iter().find(|(known, _)| known == name);
                value.map(|(_, value)| template_value(value))
            }),
        }
    }
}

impl Context {
    /// Its labels and values, by name and all together.
    pub fn new(labels: &Labels, values: &Values) -> Self {
        Context(TemplateValue::from_object(Names { labels: labels.clone(), values: values.clone() }))
    }

    /// Renders a template; one that fails on these values comes back as it is written, since a page without its text is
    /// better than no page.
    pub fn render(&self, text: &str) -> String {
        if !text.contains('{') {
            return text.to_string();
        }
        let rendered = PARSED.with_borrow_mut(|parsed| {
            if parsed.get_template(text).is_err() {
                if parsed.templates().count() >= PARSED_TEMPLATES {
                    parsed.clear_templates();
                }
                parsed.add_template_owned(text.to_string(), text.to_string())?;
            }
            parsed.get_template(text)?.render(&self.0)
        });
        rendered.unwrap_or_else(|_: minijinja::Error| text.to_string())
    }
}

fn template_value(value: &Value) -> TemplateValue {
    match value {
        Value::Null => TemplateValue::from(""),
        Value::Bool(value) => TemplateValue::from(*value),
        Value::Int(value) => TemplateValue::from(*value),
        Value::Float(value) => TemplateValue::from(*value),
        Value::Text(value) => TemplateValue::from(value.as_str()),
    }
}

/// As a number is printed, with four decimals at most: people read `91.2`, not `91.19999999999999`. Filters and `printf` have all of it.
fn short(value: f64) -> f64 {
    let scaled = value * 1e4;
    if scaled.is_finite() && scaled.abs() < 9e15 { scaled.round() / 1e4 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_load() {
        assert_eq!(
            check("GPU {{ gpu_uuid }} at {{ value }} {% if t > 3 %}{{ labels.host }}{% endif %}", &["gpu_uuid", "t"]),
            Ok(())
        );
        assert!(
            check("{{ gpu }}", &["gpu_uuid"])
                .unwrap_err()
                .contains("uses 'gpu', which is no column of the rule: expected one of gpu_uuid")
        );
        assert!(check("{{ gpu", &["gpu"]).unwrap_err().contains("syntax error"));
    }

    #[test]
    fn values_are_shown_short() {
        let labels = Labels::from([("host".to_string(), "n1".to_string())]);
        let values = vec![("t".to_string(), Value::Float(91.199_999_999)), ("n".to_string(), Value::Int(3))];
        let context = Context::new(&labels, &values);
        assert_eq!(
            context.render("{{ host }}: {{ t }} C, {{ n }}, {{ value }}, {{ labels.host }}, {{ values.n }}"),
            "n1: 91.2 C, 3, 91.2, n1, 3"
        );
        let named =
            Context::new(&labels, &vec![("t".to_string(), Value::Int(1)), ("value".to_string(), Value::Float(0.5))]);
        assert_eq!(named.render("{{ value }}"), "0.5", "a column of that name is meant");
        assert_eq!(context.render("{{ t | nonsense }}"), "{{ t | nonsense }}");
        assert_eq!(context.render("{{ 0.25 | humanize_percentage }}, {{ n | humanize_duration }}"), "25%, 3s");
        assert_eq!(
            context.render("{{ printf('%v of %.3f', t, value) }}, {{ 0.000012 | humanize }}, {{ t * 2 }}"),
            "91.199999999 of 91.200, 12u, 182.4"
        );
        assert_eq!(check("{{ printf('%v', t) }}", &["t"]), Ok(()));
        assert_eq!(context.render("{{ '<' }} see {{ host }}.html"), "< see n1.html");
    }
}
