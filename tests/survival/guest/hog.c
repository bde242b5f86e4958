// The workloads: programs that take memory in every way that has taken a machine down.
//
// Takes memory, files below the folder it is told, /dev/shm/hog, and processes. Never signals anybody but its own children.
//
//   hog [options] grow RATE SIZE     RATE MiB a second (0: as fast as it can) up to SIZE, then waits
//   hog [options] shm RATE SIZE      the same as a file in /dev/shm, which outlives it
//   hog [options] thrash SIZE        as `grow 0 SIZE`, then writes to random pages for ever
//   hog [options] files DIR SIZE     rewrites and reads 512 MiB of files in DIR while it holds SIZE
//   hog [options] bomb SIZE          every process holds SIZE and forks again, until the kernel refuses
//
//   -n COUNT   that many children do it    -g MS    so long from one child to the next
//   -t         transparent huge pages      -l       locked in RAM
//   -i         SIGTERM is ignored          -w SIZE  holds SIZE first, and goes on when /run/go exists
//   -e MS      ends well after so long, whatever it does
//
// SIZE is MiB, or with `%` a share of the machine's memory. Ends with 12 where the kernel refuses memory, 2 for a wrong call.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MIB = 1 << 20, STEP = 2 * MIB };

static int huge, locked, held_first;

static void wait_ns(int64_t ns) {
    if (ns <= 0) return;
    struct timespec left = {ns / 1000000000, ns % 1000000000};
    while (nanosleep(&left, &left) && errno == EINTR) {}
}

static int64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static size_t size_of(const char *text) {
    char *end;
    size_t number = strtoul(text, &end, 10);
    if (*end != '%') return number * MIB;
    struct sysinfo machine;
    sysinfo(&machine);
    return (size_t)machine.totalram * machine.mem_unit / 100 * number;
}

static void end_well(int signal) {
    (void)signal;
    _exit(0);
}

static void end_after(int ms) {
    struct itimerval once = {.it_value = {ms / 1000, ms % 1000 * 1000}};
    signal(SIGALRM, end_well);
    setitimer(ITIMER_REAL, &once, 0);
}

static char *reserve(size_t bytes) {
    char *memory = mmap(0, bytes + STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) exit(12);
    madvise(memory, bytes + STEP, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return memory;
}

static void touch(char *from, size_t bytes) {
    if (locked && mlock(from, bytes)) exit(12);
    for (size_t at = 0; at < bytes; at += PAGE) *(volatile char *)(from + at) = 1;
}

// Written evenly, so that the rate holds from the first step on.
static char *grow(int rate, size_t bytes, size_t from) {
    char *memory = reserve(bytes);
    touch(memory, from);
    if (held_first)
        while (access("/run/go", F_OK)) wait_ns(2000000);
    int64_t begun = clock_ns();
    for (size_t done = from; done < bytes; done += STEP) {
        touch(memory + done, STEP);
        if (rate) wait_ns(begun + (int64_t)((done + STEP - from) / MIB) * 1000000000 / rate - clock_ns());
    }
    return memory;
}

static void shm(int rate, size_t bytes, size_t from) {
    static char block[MIB];
    memset(block, 1, sizeof block);
    int file = open("/dev/shm/hog", O_RDWR | O_CREAT, 0600);
    int64_t begun = clock_ns();
    for (size_t done = 0; done < bytes; done += MIB) {
        if (done >= from && from && held_first) {
            while (access("/run/go", F_OK)) wait_ns(2000000);
            begun = clock_ns();
            held_first = 0;
        }
        if (write(file, block, MIB) != MIB) exit(12);
        if (rate) wait_ns(begun + (int64_t)(done / MIB + 1) * 1000000000 / rate - clock_ns());
    }
}

static void files(const char *folder, size_t bytes) {
    static char block[MIB];
    char *memory = reserve(bytes);
    touch(memory, bytes);
    for (unsigned round = 0;; round++) {
        char path[256];
        snprintf(path, sizeof path, "%s/hog.%u", folder, round % 4);
        int file = open(path, O_RDWR | O_CREAT, 0600);
        memset(block, (int)round, sizeof block);
        for (int part = 0; part < 128; part++)
            if (pwrite(file, block, MIB, (off_t)part * MIB) != MIB) exit(5);
        for (int part = 0; part < 128; part++)
            if (pread(file, block, MIB, (off_t)part * MIB) != MIB) exit(5);
        close(file);
    }
}

static void thrash(char *memory, size_t bytes) {
    for (uint64_t x = 88172645463325252u;;) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        *(volatile uint64_t *)(memory + x % (bytes / PAGE) * PAGE) = x;
    }
}

static void bomb(size_t bytes) {
    for (;;) {
        touch(reserve(bytes), bytes);
        while (fork() < 0) wait_ns(10000000);
    }
}

static int work(char **words, int count, size_t from) {
    if (!strcmp(words[0], "grow") && count == 3) grow(atoi(words[1]), size_of(words[2]), from);
    else if (!strcmp(words[0], "shm") && count == 3) shm(atoi(words[1]), size_of(words[2]), from);
    else if (!strcmp(words[0], "thrash") && count == 2) thrash(grow(0, size_of(words[1]), from), size_of(words[1]));
    else if (!strcmp(words[0], "files") && count == 3) files(words[1], size_of(words[2]));
    else if (!strcmp(words[0], "bomb") && count == 2) {
        while (held_first && access("/run/go", F_OK)) wait_ns(2000000);
        bomb(size_of(words[1]));
    } else return 2;
    for (;;) pause();
}

int main(int count, char **words) {
    int children = 0, gap = 0, option;
    size_t from = 0;
    while ((option = getopt(count, words, "+n:g:tliw:e:")) != -1) {
        if (option == 'n') children = atoi(optarg);
        else if (option == 'g') gap = atoi(optarg);
        else if (option == 't') huge = 1;
        else if (option == 'l') locked = 1;
        else if (option == 'i') signal(SIGTERM, SIG_IGN);
        else if (option == 'e') end_after(atoi(optarg));
        else if (option == 'w') held_first = 1, from = size_of(optarg);
        else return 2;
    }
    words += optind, count -= optind;
    if (!count) return 2;
    if (!children) return work(words, count, from);
    for (int child = 0; child < children; child++) {
        if (!fork()) return work(words, count, from);
        wait_ns((int64_t)gap * 1000000);
    }
    while (wait(0) > 0 || errno == EINTR) {}
    return 0;
}
