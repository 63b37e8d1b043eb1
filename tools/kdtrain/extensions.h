// Libraries with rows of their own: --load. See nn/extension.h.
#pragma once
#include <string>
#include <vector>

namespace retort::tools {

/// Loads the libraries in their order; each adds its rows to the registries. To be called before
/// the first use of schema(). They stay loaded for the life of the process.
///
/// Errors    kUsage for a file that is not there or is given twice; kBadInput, before anything of
///           it is run, for one that is no shared library of this machine, is cut short, has no
///           RETORT_EXTENSION, or was built against other headers, with another compiler or another
///           standard library; kBadInput for one that cannot be opened or whose rows are refused: a name
///           that is taken, a function that is missing, an option that cannot be a key.
void load_extensions(const std::vector<std::string>& paths);

/// "libmine.so 32 hex digits of XXH3-128", in the order of loading: as the key `libraries` has it.
const std::vector<std::string>& loaded_extensions();

}  // namespace retort::tools
