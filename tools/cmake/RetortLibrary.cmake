# libretort: one shared library holding every room, so that nothing exists twice. Beside it the plug-ins:
# libretort_cuda (nvcc, where there is a toolkit), libretort_cuda_emulated (tests) and libretort_mpi_* (where there is MPI).
get_property(rooms GLOBAL PROPERTY RETORT_ROOMS)
get_property(folders GLOBAL PROPERTY RETORT_PLUGIN_FOLDERS)

add_library(retort SHARED)
foreach(room IN LISTS rooms)
  target_link_libraries(retort PRIVATE ${room})
  target_sources(retort PRIVATE $<TARGET_OBJECTS:${room}>)
endforeach()
target_include_directories(retort PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>" "$<INSTALL_INTERFACE:include/retort>")
target_compile_features(retort PUBLIC cxx_std_20)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(fmt 9 REQUIRED)
target_link_libraries(retort PRIVATE "${RETORT_HIGHWAY_LIBRARY}" lzma z zstd xxhash fmt::fmt ${CMAKE_DL_LIBS})
set_target_properties(retort PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0 INSTALL_RPATH "$ORIGIN")
add_library(retort::retort ALIAS retort)

# A hash of every header under kernels/: a plug-in built from other headers is refused.
file(GLOB_RECURSE _headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/*.h")
set(_text "")
foreach(header IN LISTS _headers)
  file(SHA256 "${header}" _one)
  string(APPEND _text "${_one}")
endforeach()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${_headers})
string(SHA256 RETORT_ABI_HASH "${_text}")
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/generated/retort_abi_hash.h"
     CONTENT "#define RETORT_ABI_HASH \"@RETORT_ABI_HASH@\"\n" @ONLY)

# A hash of every public header, for libraries that `kdtrain --load` takes: installed as retort_abi.h, so that what
# they are built against says it.
set(_public "")
foreach(room kernels engine nn distill curriculum)
  file(GLOB_RECURSE _of_room CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}"
       "${PROJECT_SOURCE_DIR}/${room}/*.h" "${PROJECT_SOURCE_DIR}/${room}/*.cuh")
  list(APPEND _public ${_of_room})
endforeach()
list(SORT _public)
set(_text "${PROJECT_VERSION}")
foreach(header IN LISTS _public)
  file(SHA256 "${PROJECT_SOURCE_DIR}/${header}" _one)
  string(APPEND _text " ${header} ${_one}")
  set_property(DIRECTORY "${PROJECT_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${header}")
endforeach()
string(SHA256 RETORT_PUBLIC_HEADERS_HASH "${_text}")
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/generated/retort_abi.h"
     CONTENT "// Generated: which headers these are.\n#pragma once\n#define RETORT_PUBLIC_HEADERS_HASH \"@RETORT_PUBLIC_HEADERS_HASH@\"\n" @ONLY)

# The list of op folders, for the plug-ins' open().
set(_list "")
foreach(folder IN LISTS folders)
  string(APPEND _list "RETORT_PLUGIN_FOLDER(${folder})\n")
endforeach()
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/generated/plugin_folders.inc" CONTENT "${_list}")

add_library(retort_simt STATIC "${PROJECT_SOURCE_DIR}/kernels/simt/emu.cpp" "${PROJECT_SOURCE_DIR}/kernels/simt/instructions.cpp")
target_include_directories(retort_simt PUBLIC "${PROJECT_SOURCE_DIR}")
target_compile_options(retort_simt PRIVATE -O2)
target_link_libraries(retort_simt PUBLIC Threads::Threads)
if(RETORT_SANITIZE MATCHES "address")  # never -fsanitize=thread: see emu.cpp
  set_source_files_properties("${PROJECT_SOURCE_DIR}/kernels/simt/emu.cpp" PROPERTIES COMPILE_OPTIONS
                              "-fsanitize=${RETORT_SANITIZE};-fno-omit-frame-pointer")
endif()

add_library(retort_cuda_emulated MODULE "${PROJECT_SOURCE_DIR}/kernels/plugin/plugin_emulated.cpp")
foreach(folder IN LISTS folders)
  set(wrapper "${PROJECT_BINARY_DIR}/generated/emulated_${folder}.cpp")
  file(CONFIGURE OUTPUT "${wrapper}" CONTENT "#include \"kernels/${folder}/${folder}_cuda.cu\"\n")
  target_sources(retort_cuda_emulated PRIVATE "${wrapper}")
endforeach()
target_include_directories(retort_cuda_emulated PRIVATE "${PROJECT_BINARY_DIR}/generated")
target_compile_options(retort_cuda_emulated PRIVATE -mavx2 -mfma -fvisibility=hidden -Wno-pedantic)
target_link_libraries(retort_cuda_emulated PRIVATE retort retort_flags retort_simt)
target_link_options(retort_cuda_emulated PRIVATE -Wl,--exclude-libs,ALL)

if(RETORT_HAVE_CUDA)
  include(RetortPlugin)
endif()
include(RetortMpi)

# Install: libretort, its headers, and a package for find_package(retort).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
install(TARGETS retort EXPORT retort-targets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET retort_cuda)
  install(TARGETS retort_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
foreach(family IN LISTS RETORT_MPI_FAMILIES)
  install(TARGETS retort_mpi_${family} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endforeach()
foreach(room kernels engine nn distill curriculum)
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/${room}" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/retort
          FILES_MATCHING PATTERN "*.h" PATTERN "*.cuh")
endforeach()
install(FILES "${PROJECT_BINARY_DIR}/generated/retort_abi.h" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/retort)
# What the README's first program includes beside the library.
install(FILES "${PROJECT_SOURCE_DIR}/examples/quickstart/spiral.h" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/retort/examples/quickstart)
install(EXPORT retort-targets NAMESPACE retort:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/retort)
configure_package_config_file("${PROJECT_SOURCE_DIR}/tools/cmake/retort-config.cmake.in" "${PROJECT_BINARY_DIR}/retort-config.cmake"
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/retort)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/retort-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/retort-config.cmake" "${PROJECT_BINARY_DIR}/retort-config-version.cmake"
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/retort)
