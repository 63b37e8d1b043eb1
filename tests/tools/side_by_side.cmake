# Jobs side by side share the log, the progress, the teacher and its cache of logits: a whole run with three threads gives the
# weights of one with one. In the ThreadSanitizer build it also asks whether they race, and there kdtrain runs without oneDNN.
file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")
# Ten records as CIFAR-10 has them: a label and 3,072 equal bytes.
execute_process(COMMAND sh -c "for i in 0 1 2 3 4 5 6 7 0 1; do printf \"\\\\00$i\"; head -c 3072 /dev/zero | tr '\\0' \"$i\"; done"
                OUTPUT_FILE "${WORK}/ten.bin" RESULT_VARIABLE status)
file(SIZE "${WORK}/ten.bin" bytes)
if(NOT status EQUAL 0 OR NOT bytes EQUAL 30730)
  message(FATAL_ERROR "the records were not written: ${status}, ${bytes} bytes")
endif()
set(images cifar10_six_arms data.root=${WORK} data.train_files=ten.bin teacher.train.files=ten.bin data.test_files=ten.bin
    "data.validation_files=[]" data.train_per_file=0 teacher.arch=resnet8 teacher.allow_untrained=true teacher.train.steps=1
    teacher.train.batch=5 train.steps=3 train.batch=5 seeds=1)
set(parity parity_extraction seeds=1,2 teacher.hidden=64 teacher.train.steps=40 train.steps=30 train.log_steps=7 data.test_size=64
    data.bits=10 data.support=2 distill.extraction.steps=10 distill.extraction.calibration=64 teacher.allow_untrained=true
    train.evaluate_steps=10 train.checkpoint_steps=11 arms=one_shot,extraction_head16,untrained_control)
foreach(name images parity)
  set(weights "")
  foreach(threads 1 3)
    execute_process(COMMAND "${KDTRAIN}" run ${${name}} --device cpu --threads ${threads} --out "${WORK}/${name}${threads}"
                    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT status EQUAL 0)
      message(FATAL_ERROR "kdtrain run, ${name}, ${threads} threads: ${status}\n${output}")
    endif()
    file(GLOB_RECURSE models RELATIVE "${WORK}/${name}${threads}" "${WORK}/${name}${threads}/*/model.safetensors")
    list(FILTER models EXCLUDE REGEX ckpt)
    list(LENGTH models count)
    if(count LESS 7)
      message(FATAL_ERROR "${name}, ${threads} threads: expected the weights of at least 7 jobs, got ${count}")
    endif()
    set(hashes "")
    foreach(model IN LISTS models)
      file(SHA256 "${WORK}/${name}${threads}/${model}" hash)
      list(APPEND hashes "${model} ${hash}")
    endforeach()
    if(weights AND NOT weights STREQUAL hashes)
      message(FATAL_ERROR "${name}: other weights with ${threads} threads")
    endif()
    set(weights "${hashes}")
  endforeach()
endforeach()
file(REMOVE_RECURSE "${WORK}")
