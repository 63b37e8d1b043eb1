# Writes OUT, a header with the commit of SOURCE, at each build; the file is touched only when that changes, so that
# a commit costs one small file and a link.
#
#   cmake -DSOURCE=... -DOUT=... -P build_commit.cmake
#
# RETORT_COMMIT in the environment says it where there is no git: a tree out of an archive.
set(commit "$ENV{RETORT_COMMIT}")
if(commit STREQUAL "")
  set(commit unknown)
  find_program(git git)
  if(git)
    # SOURCE may lie inside another project's repository, whose commit is not ours.
    execute_process(COMMAND "${git}" -C "${SOURCE}" rev-parse --show-cdup HEAD
                    OUTPUT_VARIABLE said ERROR_QUIET RESULT_VARIABLE failed)
    if(failed EQUAL 0 AND said MATCHES "^\n([0-9a-f]+)\n$")
      set(commit "${CMAKE_MATCH_1}")
      execute_process(COMMAND "${git}" -C "${SOURCE}" --no-optional-locks status --porcelain -uno OUTPUT_VARIABLE changes ERROR_QUIET)
      if(NOT changes STREQUAL "")
        string(APPEND commit " (with changes)")
      endif()
    endif()
  endif()
endif()
string(REGEX REPLACE "[\"\\\\\n]" "" commit "${commit}")
set(text "#pragma once\n#define RETORT_BUILT_COMMIT \"${commit}\"\n")
set(before "")
if(EXISTS "${OUT}")
  file(READ "${OUT}" before)
endif()
if(NOT before STREQUAL text)
  file(WRITE "${OUT}" "${text}")
endif()
