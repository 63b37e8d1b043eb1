// Signals that ask a run to stop: the first asks for a checkpoint at the next step, a second quits.
#pragma once

namespace retort::tools {

/// Installs the handlers of SIGTERM, SIGHUP, SIGUSR1, SIGINT and SIGQUIT, and lets long reading ask
/// for them (retort::stop_wanted). A SIGHUP that is ignored stays so (nohup). Also ignores SIGPIPE
/// and SIGXFSZ, so that a closed pipe or a file-size limit is an error of write() with a message
/// instead of a silent death.
void install_signal_handlers();

/// The signal that asked to stop, this process or another rank, or 0.
int stop_requested() noexcept;
/// Another rank's: from now on it asks to stop here, too. One that this process then gets itself, as
/// the launcher hands it on, is its first, and does not quit.
void agree_on_signal(int signal) noexcept;

/// What a run exits with after its checkpoint: 130 for SIGINT and SIGQUIT, which a person sends,
/// 143 for the others, which a machine sends.
int exit_code_of(int signal) noexcept;
/// "SIGTERM"; "a signal" for those that are not handled here.
const char* signal_name(int signal) noexcept;

}  // namespace retort::tools
