/* A small libnvidia-ml.so.1 for nvidia-ml-py to load in place of the driver's: "count" GPUs (2, at
   most 8), H200s or with "b200 1" B200s, of the host "host" (0), which their UUIDs end with. The one of
   index "lost" (1; 0 for none) is lost. What is missing here is FUNCTION_NOT_FOUND there, as with an
   old driver.
   FAKE_NVML_INIT: the number that nvmlInitWithFlags returns. FAKE_NVML_STATE: a file of lines such
   as "taken_mib 4096", read at every question, so that a test can change what happens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, TIMEOUT = 10, LOST = 15 };
enum { XID = 8 };

static long long state(const char *wanted, long long otherwise) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char name[64];
    long long value;
    if (!file) return otherwise;
    while (fscanf(file, "%63s %lld", name, &value) == 2)
        if (!strcmp(name, wanted)) otherwise = value;
    fclose(file);
    return otherwise;
}
enum { MOST = 8 };
static int devices[MOST] = {0, 1, 2, 3, 4, 5, 6, 7};
static char uuids[MOST][41];
static void name_them(void) {
    for (int i = 0; i < MOST; i++)
        snprintf(uuids[i], sizeof uuids[i], "GPU-%daaaaaaa-0000-4000-8000-0000000000%d%d", i,
                 (int)state("host", 0) % 10, i);
}
static int reached(int index) { return index && index == state("lost", 1) ? LOST : OK; }

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } pci;

int nvmlInitWithFlags(unsigned flags) {
    const char *answer = getenv("FAKE_NVML_INIT");
    name_them();
    return flags == 0 && answer ? atoi(answer) : OK;
}
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == 25 ? "Version Mismatch" : "Other"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    strncpy(text, "580.159.04", size);
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = state("count", 2); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, int **device) {
    *device = &devices[index];
    return reached(index);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, int **device) {
    for (int i = 0; i < MOST; i++)
        if (!strcmp(uuid, uuids[i])) { *device = &devices[i]; return reached(i); }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(int *device, char *text, unsigned size) {
    strncpy(text, uuids[*device], size);
    return OK;
}
int nvmlDeviceGetName(int *device, char *text, unsigned size) {
    (void)device;
    strncpy(text, state("b200", 0) ? "NVIDIA B200" : "NVIDIA H200", size);
    return OK;
}
int nvmlDeviceGetPciInfo_v3(int *device, pci *info) {
    sprintf(info->bus_id, "00000000:%02X:00.0", *device + 1);
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(int *device, memory_v2 *memory) {
    (void)device;
    if (memory->version != 0x02000028) return 25;
    memory->total = 143771ULL << 20;
    memory->reserved = 615ULL << 20;
    /* leaked_mib: on top, as the fake server's fault leaks-gpu writes it. */
    memory->used = (unsigned long long)(state("taken_mib", 40LL << 10) + state("leaked_mib", 0))
                   << 20;
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(int *device, unsigned *count, process *list) {
    (void)device;
    if (state("processes", 2) == 0) { *count = 0; return OK; }
    if (!list) { *count = 2; return SMALL; }
    *count = 2;
    list[0] = (process){state("pid", 4711), 40ULL << 30, -1u, -1u};
    list[1] = (process){4712, -1ULL, -1u, -1u}; /* not available */
    return OK;
}
int nvmlDeviceGetMigMode(int *device, unsigned *current, unsigned *pending) {
    (void)device;
    *current = *pending = state("mig", 0);
    return state("mig", -1) < 0 ? NOT_SUPPORTED : OK;
}
int nvmlDeviceGetEccMode(int *device, unsigned *current, unsigned *pending) {
    (void)device;
    *current = *pending = 1;
    return OK;
}
int nvmlDeviceGetTotalEccErrors(int *device, int error, int counter, unsigned long long *count) {
    (void)device; (void)error; (void)counter;
    *count = state("ecc", 0);
    return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(int *device, unsigned long long *reasons) {
    (void)device;
    *reasons = state("reasons", 1);
    return OK;
}

typedef struct { int *device; unsigned long long type, data; unsigned gi, ci; } event;
static int told;
int nvmlEventSetCreate(void **set) { *set = &told; return OK; }
int nvmlEventSetFree(void *set) { (void)set; return OK; }
int nvmlDeviceRegisterEvents(int *device, unsigned long long kinds, void *set) {
    (void)device; (void)kinds; (void)set;
    return OK;
}
int nvmlEventSetWait_v2(void *set, event *happened, unsigned milliseconds) {
    long long xid = state("xid", 0);
    (void)set; (void)milliseconds;
    if (!xid || told) return TIMEOUT;
    told = 1;
    *happened = (event){&devices[0], XID, xid, -1u, -1u};
    return OK;
}
int nvmlDeviceGetRemappedRows(int *device, unsigned *c, unsigned *u, unsigned *p, unsigned *f) {
    (void)device;
    *c = 1; *u = 2; *p = state("pending", 1); *f = 0;
    return OK;
}
