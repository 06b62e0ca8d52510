use serde_json::json;

use crate::failure::{Class, Failure};

use super::*;

fn made(template: &str) -> Result<String, TemplateError> {
    let value = json!({
        "Name": "/web", "State": { "Status": "running", "ExitCode": 0, "Paused": false },
        "Labels": { "a": "1", "b": "2" }, "Args": ["x", "y"], "Nothing": null, "Pid": 7,
        "Ports": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }], "81/tcp": null },
    });
    let labels = value["Labels"].as_object();
    Template::parse(template)?.render(&Subject { value: &value, labels })
}

#[test]
fn what_users_of_docker_write_makes_what_docker_makes() {
    for (template, text) in [
        ("", ""),
        ("plain }} text", "plain }} text"),
        ("{{.Name}}", "/web"),
        ("{{ .State.Status }}:{{.State.ExitCode}}", "running:0"),
        ("{{json .Labels}}", r#"{"a":"1","b":"2"}"#),
        ("{{.Labels | json}}", r#"{"a":"1","b":"2"}"#),
        ("{{.Label \"a\"}}-{{.Label `nosuch`}}-", "1--"),
        ("{{index .Labels \"a\"}}{{(index .Ports `80/tcp` 0).HostPort}}", "18080"),
        ("{{(index (index .Ports \"80/tcp\") 0).HostIp}}", "127.0.0.1"),
        ("{{range .Args}}{{.}},{{end}}", "x,y,"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}};{{end}}", "0=x;1=y;"),
        ("{{range $k, $v := .Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        (
            "{{range $p, $conf := .Ports}}{{$p}} -> {{if $conf}}{{(index $conf 0).HostPort}}{{else}}none{{end}}\n{{end}}",
            "80/tcp -> 8080\n81/tcp -> none\n",
        ),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Paused}}p{{else if eq .State.Status \"running\"}}r{{else}}o{{end}}", "r"),
        ("{{if and .Name (not .State.Paused) (ne .Pid 0)}}yes{{end}}", "yes"),
        ("{{with .State}}{{.Status}} {{$.Name}}{{end}}{{with .Nothing}}x{{else}}-{{end}}", "running /web-"),
        ("{{join .Args \", \"}} {{upper .Name}} {{lower \"A\"}} {{title \"web\"}}", "x, y /WEB a Web"),
        ("{{.Name | printf \"%-6s|%5d\" }}", "err"),
        ("{{printf \"%-6s|%3d|%.2s|%q\" .Name .Pid .Name \"a\"}}", "/web  |  7|/w|\"a\""),
        ("{{len .Args}}{{len .Name}}", "24"),
        ("{{$x := 1}}{{$x}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "12"),
        ("{{/* a comment */}}a {{- \" b \" -}}  c", "a b c"),
        ("{{println .Pid \"x\"}}", "7 x\n"),
        ("{{print 1 2 \"x\" 3}}", "1 2x3"),
        ("{{.Nothing}} {{.Args}} {{.Labels}}", "<no value> [x y] map[a:1 b:2]"),
        ("{{\"}}\"}}{{\"\\\"\"}}", "}}\""),
        ("{{slice}}", "err"),
        ("{{truncate .Name 2}}{{pad \"x\" 1 2}}|{{split \"a,b\" \",\"}}", "/w x  |[a b]"),
        ("{{if gt .Pid 3}}{{if le \"a\" \"b\"}}ok{{end}}{{end}}", "ok"),
    ] {
        match made(template) {
            Ok(said) => assert_eq!(said, text, "{template}"),
            Err(error) => assert_eq!(text, "err", "{template}: {error}"),
        }
    }
}

#[test]
fn what_is_not_there_is_an_error_that_names_what_is() {
    let error = made("{{.State.Stauts}}").unwrap_err();
    assert!(
        matches!(&error, TemplateError::NoField { name, there } if name == "Stauts" && there.len() == 3),
        "{error}"
    );
    assert_eq!(Failure::from(error).class, Class::NotFound);
    for template in ["{{.Nope}}", "{{$x}}", "{{.Name.Length}}", "{{range .Args}}{{.Name}}{{end}}"] {
        assert!(matches!(made(template), Err(TemplateError::NoField { .. })), "{template}");
    }
}

#[test]
fn what_is_no_template_is_refused_with_its_place() {
    for template in [
        "{{",
        "{{.Name",
        "{{}}",
        "{{end}}",
        "{{else}}",
        "{{if .Name}}",
        "{{range}}x{{end}}",
        "{{.Name .Pid",
        "{{nosuch .}}",
        "{{\"a}}",
        "{{1.5}}",
        "{{.Name | .Pid}}",
        "{{(.Name}}",
        "{{.Name)}}",
        "{{if .Name}}a{{else}}b{{else}}c{{end}}",
        "{{\"\\x\"}}",
        "{{5 6}}",
        "{{#}}",
        "{{range .Args}}{{else if .Pid}}{{end}}",
    ] {
        let error = Template::parse(template).unwrap_err();
        assert!(matches!(error, TemplateError::Malformed { .. }), "{template}: {error}");
        assert_eq!(Failure::from(error).class, Class::Usage);
    }
    assert!(matches!(made("{{.Name 1}}"), Err(TemplateError::Argument { .. })));
    assert!(matches!(made("{{index .Args 9}}"), Err(TemplateError::Argument { .. })));
    assert!(matches!(made("{{range .Pid}}{{end}}"), Err(TemplateError::Argument { .. })));
}

#[test]
fn neither_depth_nor_steps_nor_bytes_are_without_bound() {
    let deep = "{{if .Name}}".repeat(40) + &"{{end}}".repeat(40);
    assert!(Template::parse(&deep).is_err());
    assert!(Template::parse(&format!("{{{{{}1{}}}}}", "(".repeat(40), ")".repeat(40))).is_err());
    assert!(Template::parse(&"x".repeat(Template::LONGEST + 1)).is_err());
    let doubling = "{{$x := .Name}}".to_owned() + &"{{$x = printf \"%s%s\" $x $x}}".repeat(40);
    assert!(matches!(made(&doubling), Err(TemplateError::TooMuch(_))));
    let list = json!({ "L": vec![0; 2000] });
    let turns = Template::parse("{{range .L}}{{range $.L}}{{end}}{{end}}").unwrap();
    let subject = Subject { value: &list, labels: None };
    assert!(matches!(turns.render(&subject), Err(TemplateError::TooMuch(_))));
}

#[test]
fn what_is_copied_printed_and_split_is_weighed_before_it_is_made() {
    let large = json!({ "S": "x".repeat(1 << 20), "L": vec!["y".repeat(1 << 16); 48], "Q": "\"".repeat(1 << 19) });
    let subject = Subject { value: &large, labels: None };
    let made = |template: &str| Template::parse(template).unwrap().render(&subject);
    for template in [
        // Copies of the subject, in variables and as arguments, one after the other and in a loop.
        "{{$x := .}}".repeat(40),
        "{{len .L}}".repeat(40),
        "{{range $i, $a := .L}}{{range $j, $b := $.L}}{{end}}{{end}}".into(),
        "{{$x := .S}}".to_owned() + &"{{$y := $x}}".repeat(80),
        "{{len (printf \"%s\" `lit`)}}{{$x := .L}}".to_owned() + &"{{index $x 0}}".repeat(40),
        // Values made of one.
        "{{len (split .S \"\")}}".repeat(3),
        "{{print .L}}".into(),
        "{{join .L \",\"}}".into(),
        "{{println .L}}".into(),
        "{{printf \"%v\" .L}}".into(),
        "{{json (json .Q)}}".into(),
        // And the text.
        "{{.L}}".repeat(8),
    ] {
        assert!(matches!(made(&template), Err(TemplateError::TooMuch(_))), "{template:.60}");
    }
    assert_eq!(made("{{len .L}} {{len .S}} {{len (split \"a,b\" \",\")}}").unwrap(), "48 1048576 2");
}

#[test]
fn json_of_what_acts_on_a_terminal_is_plain_and_the_same() {
    let label = "a\u{9b}31m\u{202e}b";
    let value = json!({ "Labels": { "k": label } });
    let text = Template::parse("{{json .Labels}}").unwrap().render(&Subject { value: &value, labels: None }).unwrap();
    assert_eq!(text, r#"{"k":"a\u009b31m\u202eb"}"#);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value["Labels"]);
}

#[test]
fn a_table_has_a_heading_of_its_fields() {
    let template = Template::parse("{{.ID}}\t{{lower .Names}} {{json .}}!").unwrap();
    assert_eq!(template.heading(|field| Some(field.to_uppercase())), "ID\tNAMES !");
}
