// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tools beyond those of busybox: checked transfers at full rate, GPIO lines, attempts to reach the memory of
//! other domains. Each is a command of the program `agent`, also in a guest's shell.

mod arguments;
mod borrow;
mod census;
mod confined;
mod forbidden;
mod foreign;
mod gpio;
mod i2c;
mod timing;

use std::fmt::Write;

use arguments::Arguments;
pub use arguments::Failure;

struct Tool {
    /// The tool's name and the names of its arguments. The last one may be repeated: `NAME...`.
    usage: &'static str,
    help: &'static str,
    run: fn(Arguments<'_>) -> Result<(), Failure>,
}

const fn tool(
    usage: &'static str,
    help: &'static str,
    run: fn(Arguments<'_>) -> Result<(), Failure>,
) -> Tool {
    Tool { usage, help, run }
}

const TOOLS: &[Tool] = &[
    tool("i2c BUS MESSAGE...", "one request; MESSAGE is wADDRESS:HEX or rADDRESS:LENGTH", |a| {
        i2c::request(a.number(0)?, a.rest(1))
    }),
    tool("i2c-stress BUS ADDRESS OFFSET LENGTH N", "N times: write a pattern, read it back, compare", |a| {
        let place = i2c::Place { address: a.number(1)?, offset: a.number(2)?, length: a.number(3)? };
        i2c::stress(a.number(0)?, &place, a.number(4)?)
    }),
    tool("gpio-lines CHIP", "print name, direction and consumer of each line", |a| gpio::lines(a.text(0)?)),
    tool("gpio-get CHIP LINE", "read an input", |a| gpio::get(a.text(0)?, a.number(1)?)),
    tool("gpio-hold CHIP LINE VALUE", "drive an output until killed", |a| {
        gpio::hold(a.text(0)?, a.number(1)?, a.text(2)? == "1")
    }),
    tool("gpio-blink CHIP LINE N MILLISECONDS", "N times: drive 1, then 0", |a| {
        gpio::blink(a.text(0)?, a.number(1)?, a.number(2)?, a.number(3)?)
    }),
    tool("gpio-watch CHIP LINE EDGE N", "wait for N edges (rising, falling, both)", |a| {
        gpio::watch(a.text(0)?, a.number(1)?, a.text(2)?, a.number(3)?)
    }),
    tool("gpio-stress CHIP OUT IN N", "N times: drive OUT, read IN, compare", |a| {
        gpio::stress(a.text(0)?, a.number(1)?, a.number(2)?, a.number(3)?)
    }),
    tool("time-i2c BUS ADDRESS REGISTER LENGTH N", "time N reads of a register, after 8 others", |a| {
        timing::i2c_read(a.number(0)?, a.number(1)?, a.number(2)?, a.number(3)?, a.number(4)?)
    }),
    tool("time-i2c-flight BUS ADDRESS MESSAGES N", "time N requests of MESSAGES reads of two bytes", |a| {
        timing::i2c_flight(a.number(0)?, a.number(1)?, a.number(2)?, a.number(3)?)
    }),
    tool("time-gpio-get CHIP LINE N", "time N reads of an input", |a| {
        timing::gpio_get(a.text(0)?, a.number(1)?, a.number(2)?)
    }),
    tool("time-gpio-set CHIP LINE N", "time N writes of an output", |a| {
        timing::gpio_set(a.text(0)?, a.number(1)?, a.number(2)?)
    }),
    tool("time-edges CHIP LINE N", "wait for N rising edges, with marks for the benchmark's plugin", |a| {
        timing::edges(a.text(0)?, a.number(1)?, a.number(2)?)
    }),
    tool("make-edges FILE N MILLISECONDS", "make N rising edges with the file `pull` of gpio-sim", |a| {
        timing::make_edges(a.text(0)?, a.number(1)?, a.number(2)?)
    }),
    tool("idle MILLISECONDS", "do nothing", |a| {
        timing::idle(a.number(0)?);
        Ok(())
    }),
    tool("threads", "print the threads of all programs", |_| census::threads()),
    tool("census", "print the processes of shim and backends with their resources", |_| census::census()),
    tool("map-foreign DOMID GFN COUNT", "try to map pages of a domain by foreign mapping", |a| {
        foreign::map_foreign(a.number(0)?, a.number(1)?, a.number(2)?)
    }),
    tool("map-grant DOMID FIRST COUNT", "try to map pages by a domain's grant references", |a| {
        foreign::map_grants(a.number(0)?, a.number(1)?, a.number(2)?)
    }),
    tool(
        "map-resource DOMID RESOURCE ID FRAME",
        "try to map a resource: ioreq-server, grant-table, ...",
        |a| forbidden::map_resource(a.number(0)?, a.text(1)?, a.number(2)?, a.number(3)?),
    ),
    tool("take-ports DOMID", "try to use up the event channels of a domain", |a| {
        forbidden::take_ports(a.number(0)?)
    }),
    tool("enable-without-page DOMID", "try to enable an ioreq server without its ioreq page", |a| {
        forbidden::enable_without_page(a.number(0)?)
    }),
    tool("overload DOMID", "create as many ioreq servers and ranges of a guest as Xen allows", |a| {
        forbidden::overload(a.number(0)?)
    }),
    tool("end-overload", "remove what `overload` has created", |_| forbidden::end_overload()),
    tool("hypercalls DOMID", "try hypercalls that Xen must refuse, and print those that it accepts", |a| {
        forbidden::hypercalls(a.number(0)?)
    }),
    tool("ioreq-servers DOMID", "print this domain's ioreq servers of a guest", |a| {
        foreign::ioreq_servers(a.number(0)?)
    }),
    tool("open-as UID PATH...", "try to open files as a user", |a| {
        confined::open_as(a.number(0)?, a.rest(1))
    }),
    tool("borrow PID DOMID...", "try to reach domains with a process's descriptors of /dev/xen", |a| {
        borrow::borrow(a.number(0)?, &a.numbers::<u16>(1)?)
    }),
];

impl Tool {
    /// Returns whether a command names this tool and has its number of arguments.
    fn accepts(&self, name: &str, arguments: &[&str]) -> bool {
        let mut words = self.usage.split(' ');
        let (is_named, takes) = (words.next() == Some(name), words.count());
        let fits =
            if self.usage.ends_with("...") { arguments.len() + 1 >= takes } else { arguments.len() == takes };
        is_named && fits
    }
}

/// Returns the help text.
fn usage() -> String {
    let mut text = format!("{:<50} serve the console (standard input and output)\n", "agent");
    for Tool { usage, help, .. } in TOOLS {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{:<50} {help}", format!("agent {usage}"));
    }
    text + "CHIP is a name like gpiochip0, or the label of a chip"
}

/// Runs the tool that `arguments` name and prints its result to standard output.
///
/// # Errors
/// Returns an error if there is no such tool, or it fails.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["help"] {
        println!("{}", usage());
        return Ok(());
    }
    let (name, arguments) = words.split_first().ok_or("no tool is named")?;
    match TOOLS.iter().find(|tool| tool.accepts(name, arguments)) {
        Some(tool) => (tool.run)(Arguments(arguments)),
        None => Err(format!("unknown command, or wrong number of arguments\n{}", usage()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_with_too_few_arguments_is_refused() {
        assert!(run(&["i2c-stress".to_owned()]).is_err());
    }

    #[test]
    fn tool_accepts_as_many_arguments_as_its_usage_has() {
        let accepts = |name: &str, arguments: &[&str]| TOOLS.iter().any(|tool| tool.accepts(name, arguments));
        assert!(accepts("gpio-get", &["gpiochip0", "3"]));
        assert!(!accepts("gpio-get", &["gpiochip0"]) && !accepts("gpio-get", &["gpiochip0", "3", "4"]));
        assert!(accepts("i2c", &["0", "r0x50:1", "r0x50:2"]) && accepts("i2c", &["0"]));
        assert!(!accepts("i2c", &[]));
    }
}
