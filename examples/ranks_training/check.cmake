# The program trains to the same weights on one rank and on several, under each launcher that is here.
#   cmake -DPROGRAM=... [-DMPIRUN_openmpi=...] [-DMPIRUN_mpich=...] -P check.cmake
include("${CMAKE_CURRENT_LIST_DIR}/../ranks/same_on_ranks.cmake")
same_on_ranks("accuracy (0\\.9[0-9]|1\\.00), weights [0-9a-f]+" 2 4)
