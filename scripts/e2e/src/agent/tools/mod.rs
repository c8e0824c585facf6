// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What plain Linux tools do not do: thousands of transfers that are checked, GPIO lines, attempts on foreign
//! memory. Each is a command of the agent's binary, also by hand in a guest's shell.

mod borrow;
mod census;
mod confined;
mod forbidden;
mod foreign;
mod gpio;
mod i2c;
mod timing;

use std::error::Error;
use std::str::FromStr;

/// Why a tool failed.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What `agent help` says.
pub const USAGE: &str = "\
agent                                           serve the console (standard input and output)
agent i2c BUS MESSAGE...                        one request; MESSAGE is wADDRESS:HEX or rADDRESS:LENGTH
agent i2c-stress BUS ADDRESS OFFSET LENGTH N    N times: write a pattern, read it back, compare
agent gpio-lines CHIP                           name, direction and user of each line
agent gpio-get CHIP LINE                        read an input
agent gpio-hold CHIP LINE VALUE                 drive an output until killed
agent gpio-blink CHIP LINE N MILLISECONDS       N times: drive 1, then 0
agent gpio-watch CHIP LINE EDGE N               wait for N edges (rising, falling, both)
agent gpio-stress CHIP OUT IN N                 N times: drive OUT, read IN, compare
agent time-i2c BUS ADDRESS REGISTER LENGTH N    N times: read a register; how long that took
agent time-i2c-flight BUS ADDRESS MESSAGES N    N times: read two bytes, so many times in one request
agent time-gpio-get CHIP LINE N                 N times: read an input; how long that took
agent time-gpio-set CHIP LINE N                 N times: drive an output; how long that took
agent time-edges CHIP LINE N                    wait for N rising edges; marks for the benchmark's plugin
agent make-edges FILE N MILLISECONDS            N times: a rising edge by the file `pull` of a line of gpio-sim
agent idle MILLISECONDS                         do nothing
agent threads                                   the threads of all programs
agent census                                    the processes of the shim and the backends, and what each holds
agent map-foreign DOMID GFN COUNT               try to map pages of a domain by the right of this one
agent map-grant DOMID FIRST COUNT               try to map pages that a domain may have granted
agent map-resource DOMID RESOURCE ID FRAME       try to map what Xen keeps for a domain: ioreq-server, grant-table, ...
agent take-ports DOMID                          try to take event channels of a domain until it has none
agent enable-without-page DOMID                 try to enable an ioreq server of a guest that has no page of requests
agent overload DOMID                            make all ioreq servers and ranges of a guest that Xen allows, and keep them
agent end-overload                              end that
agent hypercalls DOMID                          try calls about a domain that Xen shall refuse, and tell of those that it does not
agent ioreq-servers DOMID                       which ioreq servers of a guest this domain has
agent open-as UID PATH...                       try to open files as a user
agent borrow PID DOMID...                       try to reach each domain by what a process has of /dev/xen, as its user
CHIP is a name like gpiochip0, or the label of a chip";

/// Runs the tool that `arguments` name and prints its result to standard output.
///
/// # Errors
/// If there is no such tool, or it failed.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["help"] => {
            println!("{USAGE}");
            Ok(())
        }
        ["i2c", bus, ref messages @ ..] => i2c::request(number(bus)?, messages),
        ["i2c-stress", bus, address, offset, length, count] => {
            let place =
                i2c::Place { address: number(address)?, offset: number(offset)?, length: number(length)? };
            i2c::stress(number(bus)?, &place, number(count)?)
        }
        ["gpio-lines", chip] => gpio::lines(chip),
        ["gpio-get", chip, line] => gpio::get(chip, number(line)?),
        ["gpio-hold", chip, line, value] => gpio::hold(chip, number(line)?, value == "1"),
        ["gpio-blink", chip, line, count, period] => {
            gpio::blink(chip, number(line)?, number(count)?, number(period)?)
        }
        ["gpio-watch", chip, line, edge, count] => gpio::watch(chip, number(line)?, edge, number(count)?),
        ["gpio-stress", chip, output, input, count] => {
            gpio::stress(chip, number(output)?, number(input)?, number(count)?)
        }
        ["time-i2c", bus, address, register, length, count] => timing::i2c_read(
            number(bus)?,
            number(address)?,
            number(register)?,
            number(length)?,
            number(count)?,
        ),
        ["time-i2c-flight", bus, address, messages, count] => {
            timing::i2c_flight(number(bus)?, number(address)?, number(messages)?, number(count)?)
        }
        ["time-edges", chip, line, count] => timing::edges(chip, number(line)?, number(count)?),
        ["make-edges", pull, count, milliseconds] => {
            timing::make_edges(pull, number(count)?, number(milliseconds)?)
        }
        ["idle", milliseconds] => {
            timing::idle(number(milliseconds)?);
            Ok(())
        }
        ["threads"] => census::threads(),
        ["time-gpio-get", chip, line, count] => timing::gpio_get(chip, number(line)?, number(count)?),
        ["time-gpio-set", chip, line, count] => timing::gpio_set(chip, number(line)?, number(count)?),
        ["census"] => census::census(),
        ["map-foreign", domain, first, count] => {
            foreign::map_foreign(number(domain)?, number(first)?, number(count)?)
        }
        ["map-resource", domain, resource, id, frame] => {
            forbidden::map_resource(number(domain)?, resource, number(id)?, number(frame)?)
        }
        ["take-ports", domain] => forbidden::take_ports(number(domain)?),
        ["enable-without-page", domain] => forbidden::enable_without_page(number(domain)?),
        ["overload", domain] => forbidden::overload(number(domain)?),
        ["end-overload"] => forbidden::end_overload(),
        ["hypercalls", domain] => forbidden::hypercalls(number(domain)?),
        ["ioreq-servers", domain] => foreign::ioreq_servers(number(domain)?),
        ["map-grant", domain, first, count] => {
            foreign::map_grants(number(domain)?, number(first)?, number(count)?)
        }
        ["open-as", user, ref paths @ ..] => confined::open_as(number(user)?, paths),
        ["borrow", process, ref domains @ ..] => {
            let domains: Result<Vec<u16>, Failure> = domains.iter().map(|domain| number(domain)).collect();
            borrow::borrow(number(process)?, &domains?)
        }
        _ => Err(format!("unknown command\n{USAGE}").into()),
    }
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number<T: FromStr + TryFrom<u64>>(text: &str) -> Result<T, Failure> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16)?,
        None => text.parse()?,
    };
    T::try_from(value).map_err(|_| format!("{text} is too large").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number::<u16>("0x50").ok(), Some(0x50));
        assert_eq!(number::<u16>("80").ok(), Some(80));
        assert!(number::<u8>("256").is_err());
        assert!(number::<u8>("-1").is_err());
    }

    #[test]
    fn an_unknown_command_is_refused() {
        assert!(run(&["i2c-stress".to_owned()]).is_err());
    }
}
