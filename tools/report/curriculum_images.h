// The easiest and the hardest images of a curriculum, for the page to show.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace retort::tools {

// Note [What curriculum/NAME.images.json holds]
//   {"easiest": [IMAGE, ...], "hardest": [IMAGE, ...]}, easiest and hardest first. An IMAGE is
//     {"index": 17, "label": "cat", "score": 9.5, "correct": true, "png": "<base64>"}
//   index as in NAME.csv; correct: the scorer was right. All but png may be missing.

struct CurriculumImage {
  std::int64_t index = 0;
  std::string label;  // the class, as people read it
  double score = 0;
  bool correct = false;
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  // (height, width, 3)
};

/// Writes curriculum/NAME.images.json of a run folder; a dozen of each fill one line of the page.
/// Errors    as png_of; kIo
void write_curriculum_images(const std::filesystem::path& run_folder, const std::string& name,
                             const std::vector<CurriculumImage>& easiest,
                             const std::vector<CurriculumImage>& hardest);

/// The file as two lines of pictures, "" if there is none.
/// Errors    kBadInput if it is not as the note says, or larger than 8 MiB
std::string curriculum_images_html(const std::filesystem::path& file);

}  // namespace retort::tools
