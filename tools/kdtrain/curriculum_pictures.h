// The images at both ends of a curriculum, for the report.
#pragma once
#include <filesystem>

#include "tools/kdtrain/curricula.h"

namespace retort::tools {

/// Writes curriculum/NAME.images.json of a run folder: a dozen of the samples that are easiest and
/// that are hardest by the scores, whatever order they are fed in. Nothing where the data is no
/// images of one or three channels, or the images are larger than a page has room for.
void write_curriculum_pictures(const std::filesystem::path& run_folder,
                               const NamedCurriculum& curriculum, const ExperimentData& data);

}  // namespace retort::tools
