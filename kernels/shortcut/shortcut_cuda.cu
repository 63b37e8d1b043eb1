#include "kernels/common/plugin.h"
#include "kernels/shortcut/shortcut.cuh"

RETORT_CUDA_PLUGIN(shortcut) {
  using namespace retort::kernels;
  RETORT_CUDA_BIND(shortcut, ShortcutArgs);
  RETORT_CUDA_BIND(shortcut_backward, ShortcutBackwardArgs);
}
