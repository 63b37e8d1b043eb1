# Installs the build BUILD into a fresh prefix below WORK, builds the consumer against it, runs it; then runs the
# installed kdtrain with the consumer's library of rows, and with libraries that it must refuse. KDTRAIN: built too.
function(step)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "failed (${status}): ${ARGN}\n${text}")
  endif()
  set(text "${text}" PARENT_SCOPE)
endfunction()
# refused(STATUS REGEX ARGS...): kdtrain ends with the status and one line that matches.
function(refused wanted regex)
  execute_process(COMMAND "${kdtrain}" ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE text)
  if(NOT status STREQUAL wanted OR NOT text MATCHES "${regex}" OR text MATCHES "internal error")
    message(FATAL_ERROR "kdtrain ${ARGN}: expected ${wanted} and '${regex}', got ${status} and\n${text}${out}")
  endif()
endfunction()

file(REMOVE_RECURSE "${WORK}")
step(${CMAKE_COMMAND} --install "${BUILD}" --prefix "${WORK}/prefix")
step(${CMAKE_COMMAND} -S "${SOURCE}" -B "${WORK}/build" -G Ninja "-DCMAKE_PREFIX_PATH=${WORK}/prefix" -DCMAKE_BUILD_TYPE=Release)
step(${CMAKE_COMMAND} --build "${WORK}/build")
step("${WORK}/build/consumer")
foreach(program ranks ranks_training)
  step(${CMAKE_COMMAND} "-DPROGRAM=${WORK}/build/${program}" "-DMPIRUN_openmpi=${MPIRUN_openmpi}" "-DMPIRUN_mpich=${MPIRUN_mpich}"
       -P "${SOURCE}/../../examples/${program}/check.cmake")
endforeach()
set(kdtrain "${WORK}/prefix/bin/kdtrain")
if(NOT EXISTS "${kdtrain}")
  return()  # RETORT_TOOLS=OFF
endif()

set(mine "${WORK}/build/libmine.so")
set(recipe "${SOURCE}/my.toml")
set(folder "${WORK}/run")
step("${kdtrain}" schema distill.logit_mse --load "${mine}")
step("${kdtrain}" validate "${recipe}" --load "${mine}")
step("${kdtrain}" run "${recipe}" --load "${mine}" --device cpu --out "${folder}")
step("${WORK}/build/consumer" "${folder}")
step("${kdtrain}" eval --arch skip_net --model "${folder}/arms/ours/seed1/model.safetensors" --load "${mine}" --device cpu
     student.skip_width=8 data.format=blobs data.blob_classes=5)
if(NOT text MATCHES "\"worst_class\":")
  message(FATAL_ERROR "eval does not print the metric: ${text}")
endif()
# The pacing acts: without it the student meets other batches.
step("${kdtrain}" run "${recipe}" curriculum.pacing=none --load "${mine}" --device cpu --out "${WORK}/unpaced")
file(SHA256 "${folder}/arms/ours/seed1/model.safetensors" paced)
file(SHA256 "${WORK}/unpaced/arms/ours/seed1/model.safetensors" unpaced)
if(paced STREQUAL unpaced)
  message(FATAL_ERROR "curriculum.pacing = \"halves\" changes nothing")
endif()
# So does the divergence. It has no CUDA kernel, and that is said before anything starts.
step("${kdtrain}" run "${recipe}" distill.divergence=forward_kl distill.parameter=-1 --load "${mine}" --device cpu
     --out "${WORK}/forward")
file(SHA256 "${WORK}/forward/arms/ours/seed1/model.safetensors" forward)
if(paced STREQUAL forward)
  message(FATAL_ERROR "distill.divergence = \"alpha\" changes nothing")
endif()
step("${kdtrain}" schema distill.divergence --load "${mine}")
if(NOT text MATCHES "alpha: .*on the CPU alone")
  message(FATAL_ERROR "schema does not say where alpha runs: ${text}")
endif()
refused(2 "expected a number in \\(0, 1\\) for alpha" validate "${recipe}" distill.parameter=0 --load "${mine}")
set(emulated "${BUILD}/lib/libretort_cuda_emulated.so")
if(EXISTS "${emulated}")
  set(ENV{RETORT_CUDA_LIBRARY} "${emulated}")
  refused(2 "my.toml.*distill.divergence = \"alpha\" has no CUDA kernel" run "${recipe}" --load "${mine}" --device cuda
          --out "${WORK}/nowhere")
  unset(ENV{RETORT_CUDA_LIBRARY})
endif()
step("${kdtrain}" score "${recipe}" --load "${mine}" --device cpu --out "${WORK}/scores.csv"
     "teacher.weights=${folder}/arms/teacher/seed1/model.safetensors")

# The run names its library, and goes on with that one alone.
file(READ "${folder}/recipe.resolved.toml" resolved)
if(NOT resolved MATCHES "libraries = \\[\"libmine.so [0-9a-f]+\"\\]")
  message(FATAL_ERROR "recipe.resolved.toml does not name the library")
endif()
step("${kdtrain}" run "${recipe}" --load "${mine}" --device cpu --out "${folder}" --resume)
step("${kdtrain}" validate "${folder}/recipe.resolved.toml" --load "${mine}")
refused(2 "the recipe wants libmine.so [0-9a-f]+, but --load gave none" validate "${folder}/recipe.resolved.toml")
file(COPY_FILE "${mine}" "${WORK}/libmine.so")
file(APPEND "${WORK}/libmine.so" "x")  # the same rows in a file of other bytes
refused(2 "cannot resume.*libraries was .*libmine.so.*, is " run "${recipe}" --load "${WORK}/libmine.so" --device cpu
        --out "${folder}" --resume)

refused(2 "there is no file nowhere.so" schema --load nowhere.so)
refused(2 "is given twice" schema --load "${mine}" --load "${mine}")
refused(3 "not a file" schema --load "${WORK}")
refused(3 "no ELF file" schema --load "${recipe}")
refused(3 "has no RETORT_EXTENSION" schema --load "${WORK}/build/libforeign.so")
refused(3 "built against another Retort.*headers of long ago" schema --load "${WORK}/build/libstale.so")
refused(3 "rows were refused: no row today" schema --load "${WORK}/build/libthrows.so")
refused(3 "rows were refused: .*'skip_net' is there already" schema --load "${mine}" --load "${WORK}/libmine.so")
refused(3 "threw while it was opened" schema --load "${WORK}/build/libthrows_early.so")
file(SIZE "${mine}" size)
foreach(share 2 3 50)
  math(EXPR bytes "${size} / ${share}")
  execute_process(COMMAND head -c ${bytes} "${mine}" OUTPUT_FILE "${WORK}/libcut.so")
  refused(3 "cut short|cannot be opened|RETORT_EXTENSION" schema --load "${WORK}/libcut.so")
endforeach()

# Rows with a fault: told when the library is loaded where that can be seen, else by the first call; never a signal.
set(faults "${WORK}/build/libfaults.so")
function(faulty fault status regex)
  set(ENV{RETORT_TEST_FAULT} "${fault}")
  refused(${status} "${regex}" ${ARGN} --load "${faults}")
  unset(ENV{RETORT_TEST_FAULT})
endfunction()
faulty(no_make 3 "the model 'skip_net' has no function `make`" schema)
faulty(no_score 3 "the score 'nothing' has no function `of`" schema)
faulty(key 3 "the option 'Skip Width' of the model 'skip_net' expected a name" schema)
faulty(fallback 3 "the option 'skip_width' of the model 'skip_net' expected an integer in .* its fallback is 0" schema)
faulty(table 2 "the key '[a-z]+.train' is a table too" schema)
file(WRITE "${WORK}/odd.toml" "
data = { format = \"parity\", bits = 8, support = 2, test_size = 64 }
teacher = { arch = \"skip_net\", allow_untrained = true, train.steps = 4, train.batch = 8 }
student.arch = \"skip_net\"
train = { steps = 4, batch = 8, log_steps = 1 }
distill.logit_mse.weight = 1
[[arm]]
name = \"odd\"
")
set(odd run "${WORK}/odd.toml" --device cpu)
faulty(no_model 2 "the row of 'skip_net' made no model" ${odd} --out "${WORK}/odd1")
faulty(layers 2 "'skip_net' has 0 hidden layers, and its row says otherwise" ${odd} --out "${WORK}/odd2")
faulty(no_term 2 "the row of 'logit_mse' made no term" ${odd} --out "${WORK}/odd3")
faulty(no_loss 2 "expected a scalar from 'logit_mse', got nothing" ${odd} --out "${WORK}/odd4")
faulty(column_twice 2 "give the column 'loss_ce'" ${odd} --out "${WORK}/odd5")
faulty(column_of_line 2 "a term has a column 'lr'" ${odd} --out "${WORK}/odd6")
set(ENV{RETORT_TEST_FAULT} throws)
execute_process(COMMAND "${kdtrain}" ${odd} --out "${WORK}/odd7" --load "${faults}" RESULT_VARIABLE status ERROR_VARIABLE text)
unset(ENV{RETORT_TEST_FAULT})
if(NOT status EQUAL 1 OR NOT text MATCHES "internal error, of libfaults.so or of kdtrain.*no layers today")
  message(FATAL_ERROR "an exception of a library is not told as one: ${status}\n${text}")
endif()
