//! minijinja with strict rules: an undefined variable is an error that names the template's line, a
//! template that does not end is stopped, and every output line can be traced back to its template line.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::diag::{Code, Diagnostic, Label, Result};

/// The template uses a variable that there is not, or its syntax is wrong.
pub const TEMPLATE: Code = Code::new('R', 101);

/// Steps after which a template is taken not to end.
const FUEL: u64 = 1_000_000;

/// The text of a template and the name of its file.
#[derive(Clone, Copy, Debug)]
pub struct Template<'t> {
    /// File name, for messages: `templates/hv.dts.j2`.
    pub file: &'t str,
    /// The text.
    pub text: &'t str,
}

impl Template<'_> {
    /// Renders the template.
    pub(crate) fn render(&self, context: &impl Serialize) -> Result<String> {
        render(self, self.text, context)
    }

    /// Renders the template with a line marker (`# 12 "file"`) in front of every line that a template line
    /// makes. `dtc` understands them as the C preprocessor's and reports the template's lines.
    pub(crate) fn render_marked(&self, context: &impl Serialize) -> Result<String> {
        let mut marked = String::with_capacity(self.text.len() * 2);
        for (index, line) in self.text.lines().enumerate() {
            // A line that is only a statement prints nothing, so it gets no marker; the markers share the
            // line's own end, so that minijinja still counts as the author does.
            if !line.trim_start().starts_with("{%") {
                marked.push_str(&format!("{{{{ __line({}) }}}}", index + 1));
            }
            marked.push_str(line);
            marked.push('\n');
        }
        render(self, &marked, context)
    }
}

fn render(template: &Template<'_>, text: &str, context: &impl Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the default delimiters do not collide"));
    let file = template.file.to_owned();
    environment.add_function("__line", move |line: u32| format!("# {line} \"{file}\"\n"));
    environment
        .template_from_named_str(template.file, text)
        .and_then(|compiled| compiled.render(Serde(context)))
        .map_err(|error| complaint(template, text, &error))
}

fn complaint(template: &Template<'_>, text: &str, error: &minijinja::Error) -> Box<Diagnostic> {
    let line = error.line().unwrap_or(1);
    let source = template.text.lines().nth(line - 1).unwrap_or_default();
    // The expression that failed, cut out of the text that minijinja saw.
    let expression = error.range().and_then(|range| text.get(range)).unwrap_or_default().trim();
    let what = match error.kind() {
        minijinja::ErrorKind::UndefinedError => format!("`{expression}` is not defined"),
        minijinja::ErrorKind::OutOfFuel => "the template does not end".to_owned(),
        _ => error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    };
    let help = match error.kind() {
        minijinja::ErrorKind::OutOfFuel => "a template has a million steps; correct the loop",
        _ => "a template may use the fields of its context in xtask/planner/src/render/context.rs, and no others",
    };
    let start: usize = template.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let column = source.find(expression).filter(|_| !expression.is_empty());
    let range = match column {
        Some(column) => start + column..start + column + expression.len(),
        None => start..start + source.len(),
    };
    Box::new(
        Diagnostic::error(TEMPLATE, format!("{}:{line}: {what}", template.file))
            .primary(Label::at(template.file, range, "in this expression"))
            .help(help),
    )
}

/// Takes the line markers out again, for people.
pub fn strip_markers(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !is_marker(line)).collect()
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("# ")
        .and_then(|rest| rest.split_once(' '))
        .is_some_and(|(number, file)| number.parse::<u32>().is_ok() && file.starts_with('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn template(text: &str) -> Template<'_> {
        Template { file: "t.j2", text }
    }

    fn context() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([("known", "7")])
    }

    #[test]
    fn an_undefined_variable_names_line_and_expression() {
        let error = template("a\nb {{ known }}\n  {{ missing.field }}\n").render(&context()).unwrap_err();
        assert_eq!(error.code, TEMPLATE);
        assert!(error.message.starts_with("t.j2:3: "), "{}", error.message);
        assert!(error.message.contains("missing"), "{}", error.message);
    }

    #[test]
    fn a_template_that_does_not_end_is_stopped() {
        let error = template("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}")
            .render(&context());
        assert!(error.unwrap_err().message.contains("does not end"));
    }

    #[test]
    fn markers_name_the_template_line_and_go_away_again() {
        let text = "one\n{% if true %}\ntwo {{ known }}\n{% endif %}\nfive\n";
        let marked = template(text).render_marked(&context()).unwrap();
        assert_eq!(marked, "# 1 \"t.j2\"\none\n# 3 \"t.j2\"\ntwo 7\n# 5 \"t.j2\"\nfive\n");
        assert_eq!(strip_markers(&marked), template(text).render(&context()).unwrap());
    }
}
