//! Tests of whole calls: the server on one side, a media relay laid out like WhatsApp's on the other.

mod agent_check;
mod calls;
mod capacity;
mod check;
mod commands;
mod doctor;
mod drain;
mod events;
#[cfg(test)]
mod fake_bridge;
mod load;
mod pump;
#[cfg(test)]
mod relay_in_virtual_time;
#[cfg(test)]
mod relay_on_sockets;
mod server_calls;
mod server_hostile;
mod server_log;
mod server_process;
mod simulator;
#[cfg(test)]
mod simulator_in_virtual_time;
mod supervised;
mod support;
mod tls;
mod upgrade;
mod voice;
mod whatsapp;
mod world;

use voice_media_bridge::relay;
