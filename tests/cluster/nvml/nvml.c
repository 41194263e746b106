/*
 * libnvidia-ml.so.1 for tests: NVIDIA's management library as a program on a GPU-less machine sees it.
 *
 * What it reports is read from the text file named by GPUSCHED_TEST_NVML, again at each call when the file has changed,
 * so that a test can turn knobs under a running sampler or a running Ray node. One fact a line:
 *
 *     host gpus 8                 how many GPUs there are (indices from 0)
 *     host driver 550.54.15       the driver's version
 *     host init 18                what nvmlInit returns (an nvmlReturn_t; 0 or no line = success)
 *     host count 1                what nvmlDeviceGetCount returns
 *     host delay 2.5              seconds that each call on a device takes (a driver that hangs)
 *     3 name NVIDIA H100          facts of GPU 3: name, uuid, utilization (percent), memory_used, memory_total,
 *     3 power 250000              memory_reserved (bytes), power (milliwatts), temperature (Celsius)
 *     3 compute 4242 1073741824   a process: pid and bytes; -1 bytes = the driver cannot tell
 *     3 graphics 17 1000
 *     3 ecc_volatile 2            uncorrected memory errors since the driver was loaded; ecc_aggregate: since it was made
 *     3 pages_pending 1           pages wait for a reset to be retired; rows_pending, rows_failed: rows to be remapped
 *     3 xid 79                    one critical event, told once to each process that waits for events; more lines, more
 *     3 fail power 3              calls about one fact return this code: name, uuid, utilization, memory, power,
 *     3 fail all 15               temperature, compute, graphics, mig, ecc, pages, rows, xid; all = even the
 *                                 handle
 *
 * A missing file is a driver that is not loaded. Written from NVIDIA's published interface; the layouts of the structs
 * are part of it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, TIMED_OUT = 10 };
enum { MOST_GPUS = 64, MOST_BYTES = 1 << 18, MOST_LINES = 8192 };

typedef unsigned long long u64;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; u64 memory; } ProcessV1;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { unsigned version; int sensor; int temperature; } TemperatureV1;
typedef struct { int index; } *Device;
typedef struct { Device device; u64 type, data; unsigned gpu_instance, compute_instance; } EventData;
typedef struct { int registered[64], told[64]; } *EventSet;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char text[MOST_BYTES];
static char *lines[MOST_LINES];
static int line_count;
static struct stat last;
static int users; /* nvmlInit less nvmlShutdown */
static struct { int index; } devices[MOST_GPUS];

/* Reads the file again if it is another one than last time. Returns 0 when there is none. */
static int refresh(void) {
    const char *path = getenv("GPUSCHED_TEST_NVML");
    struct stat now;
    if (!path || stat(path, &now) != 0) return 0;
    if (now.st_ino == last.st_ino && now.st_size == last.st_size && now.st_mtim.tv_sec == last.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == last.st_mtim.tv_nsec)
        return 1;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    text[fread(text, 1, MOST_BYTES - 1, file)] = 0;
    fclose(file);
    last = now;
    line_count = 0;
    for (char *rest = text, *line; line_count < MOST_LINES && (line = strsep(&rest, "\n"));)
        if (*line && *line != '#') lines[line_count++] = line;
    return 1;
}

/* The value of the n-th line that begins with "who key ", or NULL. */
static const char *find(const char *who, const char *key, int n) {
    size_t a = strlen(who), b = strlen(key);
    for (int i = 0; i < line_count; i++) {
        const char *line = lines[i];
        if (strncmp(line, who, a) || line[a] != ' ' || strncmp(line + a + 1, key, b) || line[a + 1 + b] != ' ') continue;
        if (n-- == 0) return line + a + b + 2;
    }
    return NULL;
}

static double number(const char *who, const char *key, double otherwise) {
    const char *value = find(who, key, 0);
    return value ? strtod(value, NULL) : otherwise;
}

static int gpu_count(void) {
    int n = (int)number("host", "gpus", 0);
    return n < MOST_GPUS ? n : MOST_GPUS;
}

/* What the file says a call about this fact of this GPU returns. */
static int failure(const char *who, const char *what) {
    char format[64];
    for (int n = 0;; n++) {
        const char *value = find(who, "fail", n);
        if (!value) return SUCCESS;
        int code = 0;
        if (sscanf(value, "%63s %d", format, &code) == 2 && (!strcmp(format, what) || !strcmp(format, "all"))) return code;
    }
}

/* Every call on a device begins here: takes the lock, names the GPU, waits the delay, and says whether it fails. */
static int enter(Device device, const char *what, char who[16]) {
    pthread_mutex_lock(&lock);
    int known = refresh();
    double delay = number("host", "delay", 0);
    if (delay > 0) {
        struct timespec wait = {(time_t)delay, (long)((delay - (double)(time_t)delay) * 1e9)};
        pthread_mutex_unlock(&lock);
        nanosleep(&wait, NULL);
        pthread_mutex_lock(&lock);
        known = refresh();
    }
    if (users == 0) return UNINITIALIZED;
    if (!known) return DRIVER_NOT_LOADED;
    if (!device || device->index >= gpu_count()) return INVALID_ARGUMENT;
    snprintf(who, 16, "%d", device->index);
    return failure(who, what);
}

static int leave(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}

static int copy(const char *value, char *out, unsigned size) {
    if (strlen(value) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}

/* ---- the library and the driver ---- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&lock);
    if (!refresh()) return leave(DRIVER_NOT_LOADED);
    int code = (int)number("host", "init", 0);
    if (code == SUCCESS) users++;
    return leave(code);
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    if (users == 0) return leave(UNINITIALIZED);
    users--;
    return leave(SUCCESS);
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case 0: return "Success";
    case 1: return "Uninitialized";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 9: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

static int host_text(const char *key, const char *otherwise, char *out, unsigned size) {
    pthread_mutex_lock(&lock);
    if (users == 0) return leave(UNINITIALIZED);
    if (!refresh()) return leave(DRIVER_NOT_LOADED);
    const char *value = find("host", key, 0);
    return leave(copy(value ? value : otherwise, out, size));
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) { return host_text("driver", "550.54.15", out, size); }
int nvmlSystemGetNVMLVersion(char *out, unsigned size) { return host_text("nvml", "12.550.54.15", out, size); }

int nvmlSystemGetCudaDriverVersion(int *version) {
    *version = 12040;
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    pthread_mutex_lock(&lock);
    if (users == 0) return leave(UNINITIALIZED);
    if (!refresh()) return leave(DRIVER_NOT_LOADED);
    *count = (unsigned)gpu_count();
    return leave((int)number("host", "count", 0));
}

int nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

/* ---- one GPU ---- */

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    char who[16];
    if (index >= MOST_GPUS) return INVALID_ARGUMENT;
    devices[index].index = (int)index;
    *device = (Device)&devices[index];
    return leave(enter(*device, "handle", who));
}

int nvmlDeviceGetHandleByIndex(unsigned index, Device *device) { return nvmlDeviceGetHandleByIndex_v2(index, device); }

int nvmlDeviceGetIndex(Device device, unsigned *index) {
    char who[16];
    int code = enter(device, "index", who);
    if (code == SUCCESS) *index = (unsigned)device->index;
    return leave(code);
}

int nvmlDeviceGetMinorNumber(Device device, unsigned *minor) { return nvmlDeviceGetIndex(device, minor); }

int nvmlDeviceGetName(Device device, char *out, unsigned size) {
    char who[16];
    int code = enter(device, "name", who);
    if (code) return leave(code);
    const char *value = find(who, "name", 0);
    return leave(copy(value ? value : "NVIDIA A100-SXM4-80GB", out, size));
}

int nvmlDeviceGetUUID(Device device, char *out, unsigned size) {
    char who[16], made[64];
    int code = enter(device, "uuid", who);
    if (code) return leave(code);
    const char *value = find(who, "uuid", 0);
    snprintf(made, sizeof made, "GPU-00000000-0000-0000-0000-%012d", device->index);
    return leave(copy(value ? value : made, out, size));
}

static int memory(Device device, u64 *total, u64 *reserved, u64 *used) {
    char who[16];
    int code = enter(device, "memory", who);
    if (code == SUCCESS) {
        *total = (u64)number(who, "memory_total", 85899345920.0);
        *reserved = (u64)number(who, "memory_reserved", 0);
        *used = (u64)number(who, "memory_used", 0);
    }
    return leave(code);
}

/* The first version counts what the driver keeps for itself as used; the second tells the two apart. */
int nvmlDeviceGetMemoryInfo(Device device, Memory *out) {
    u64 total = 0, reserved = 0, used = 0;
    int code = memory(device, &total, &reserved, &used);
    if (code == SUCCESS) *out = (Memory){total, total - used - reserved, used + reserved};
    return code;
}

int nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2 *out) {
    u64 total = 0, reserved = 0, used = 0;
    int code = memory(device, &total, &reserved, &used);
    if (code == SUCCESS) *out = (MemoryV2){out->version, total, reserved, total - used - reserved, used};
    return code;
}

int nvmlDeviceGetUtilizationRates(Device device, Utilization *out) {
    char who[16];
    int code = enter(device, "utilization", who);
    if (code == SUCCESS) *out = (Utilization){(unsigned)number(who, "utilization", 0), 0};
    return leave(code);
}

int nvmlDeviceGetPowerUsage(Device device, unsigned *milliwatts) {
    char who[16];
    int code = enter(device, "power", who);
    if (code == SUCCESS) *milliwatts = (unsigned)number(who, "power", 60000);
    return leave(code);
}

int nvmlDeviceGetTemperature(Device device, int sensor, unsigned *celsius) {
    char who[16];
    (void)sensor;
    int code = enter(device, "temperature", who);
    if (code == SUCCESS) *celsius = (unsigned)number(who, "temperature", 35);
    return leave(code);
}

int nvmlDeviceGetTemperatureV(Device device, TemperatureV1 *out) {
    unsigned celsius = 0;
    int code = nvmlDeviceGetTemperature(device, out->sensor, &celsius);
    if (code == SUCCESS) out->temperature = (int)celsius;
    return code;
}

/* Fills `out` when there is room for all, else says how many there are; as the real one does. */
static int processes(Device device, const char *kind, unsigned *count, Process *out) {
    char who[16];
    int code = enter(device, kind, who);
    if (code) return leave(code);
    unsigned there = 0;
    while (find(who, kind, (int)there)) there++;
    unsigned room = *count;
    *count = there;
    if (there == 0) return leave(SUCCESS);
    if (!out || room < there) return leave(INSUFFICIENT_SIZE);
    for (unsigned i = 0; i < there; i++) {
        unsigned pid = 0;
        long long bytes = -1;
        sscanf(find(who, kind, (int)i), "%u %lld", &pid, &bytes);
        out[i] = (Process){pid, (u64)bytes, 0xFFFFFFFFu, 0xFFFFFFFFu};
    }
    return leave(SUCCESS);
}

static int processes_v1(Device device, const char *kind, unsigned *count, ProcessV1 *out) {
    unsigned room = *count;
    Process *all = out ? calloc(room ? room : 1, sizeof *all) : NULL;
    int code = processes(device, kind, count, all);
    if (code == SUCCESS && all)
        for (unsigned i = 0; i < *count; i++) out[i] = (ProcessV1){all[i].pid, all[i].memory};
    free(all);
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device d, unsigned *n, Process *out) { return processes(d, "compute", n, out); }
int nvmlDeviceGetComputeRunningProcesses_v2(Device d, unsigned *n, Process *out) { return processes(d, "compute", n, out); }
int nvmlDeviceGetComputeRunningProcesses(Device d, unsigned *n, ProcessV1 *out) { return processes_v1(d, "compute", n, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device d, unsigned *n, Process *out) { return processes(d, "graphics", n, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v2(Device d, unsigned *n, Process *out) { return processes(d, "graphics", n, out); }
int nvmlDeviceGetGraphicsRunningProcesses(Device d, unsigned *n, ProcessV1 *out) { return processes_v1(d, "graphics", n, out); }

/* ---- what this GPU does not have ---- */

int nvmlDeviceGetMigMode(Device device, unsigned *current, unsigned *pending) {
    (void)device, (void)current, (void)pending;
    return NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *count) {
    (void)device;
    *count = 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned index, Device *out) {
    (void)device, (void)index, (void)out;
    return NOT_FOUND;
}

int nvmlDeviceGetProcessesUtilizationInfo(Device device, void *out) {
    (void)device, (void)out;
    return NOT_SUPPORTED;
}

int nvmlDeviceGetProcessUtilization(Device device, void *samples, unsigned *count, u64 since) {
    (void)device, (void)samples, (void)count, (void)since;
    return NOT_SUPPORTED;
}

/* ---- what is wrong with a GPU ---- */

int nvmlDeviceGetTotalEccErrors(Device device, int kind, int counter, u64 *count) {
    char who[16];
    int code = enter(device, "ecc", who);
    if (code == SUCCESS) *count = kind ? (u64)number(who, counter ? "ecc_aggregate" : "ecc_volatile", 0) : 0;
    return leave(code);
}

int nvmlDeviceGetRetiredPagesPendingStatus(Device device, int *pending) {
    char who[16];
    int code = enter(device, "pages", who);
    if (code == SUCCESS) *pending = (int)number(who, "pages_pending", 0);
    return leave(code);
}

int nvmlDeviceGetRemappedRows(Device device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    char who[16];
    int code = enter(device, "rows", who);
    if (code == SUCCESS) {
        *corrected = *uncorrected = 0;
        *pending = (unsigned)number(who, "rows_pending", 0);
        *failed = (unsigned)number(who, "rows_failed", 0);
    }
    return leave(code);
}

/* ---- events ---- */

int nvmlDeviceGetSupportedEventTypes(Device device, u64 *types) {
    char who[16];
    int code = enter(device, "xid", who);
    if (code == SUCCESS) *types = 8;
    return leave(code);
}

int nvmlEventSetCreate(EventSet *out) {
    *out = calloc(1, sizeof **out);
    return *out ? SUCCESS : UNINITIALIZED;
}

int nvmlEventSetFree(EventSet set) {
    free(set);
    return SUCCESS;
}

static int xids(int index) {
    char who[16];
    int there = 0;
    snprintf(who, 16, "%d", index);
    while (find(who, "xid", there)) there++;
    return there;
}

/* What happened before somebody listens is not told, as with the real one. */
int nvmlDeviceRegisterEvents(Device device, u64 types, EventSet set) {
    char who[16];
    int code = enter(device, "xid", who);
    if (code == SUCCESS && types & 8) {
        set->registered[device->index] = 1;
        set->told[device->index] = xids(device->index);
    }
    return leave(code);
}

int nvmlEventSetWait_v2(EventSet set, EventData *out, unsigned milliseconds) {
    struct timespec pause = {0, 20000000};
    for (unsigned waited = 0;; waited += 20) {
        pthread_mutex_lock(&lock);
        if (users == 0) return leave(UNINITIALIZED);
        if (!refresh()) return leave(DRIVER_NOT_LOADED);
        for (int i = 0; i < gpu_count(); i++) {
            char who[16];
            int there = xids(i);
            if (set->told[i] > there) set->told[i] = there;
            if (!set->registered[i] || set->told[i] == there) continue;
            snprintf(who, 16, "%d", i);
            devices[i].index = i;
            *out = (EventData){(Device)&devices[i], 8, strtoull(find(who, "xid", set->told[i]++), NULL, 10),
                               0xFFFFFFFFu, 0xFFFFFFFFu};
            return leave(SUCCESS);
        }
        leave(SUCCESS);
        if (waited >= milliseconds) return TIMED_OUT;
        nanosleep(&pause, NULL);
    }
}

int nvmlEventSetWait(EventSet set, EventData *out, unsigned milliseconds) { return nvmlEventSetWait_v2(set, out, milliseconds); }
