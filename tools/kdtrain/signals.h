// SIGINT and SIGTERM: the first asks for a checkpoint at the next step, a second SIGINT quits.
#pragma once

namespace retort::tools {

/// Installs the handlers. Also ignores SIGPIPE and SIGXFSZ, so that a closed pipe or a file-size
/// limit is an error of write() with a message instead of a silent death.
void install_signal_handlers();

/// The signal that asked to stop (SIGINT, SIGTERM), or 0.
int stop_requested();

}  // namespace retort::tools
