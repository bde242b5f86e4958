// The guest's first process: starts the bystanders and the subject, records what becomes of everybody, says it as one JSON
// object on the second serial port, and switches the machine off.
//
// Reads /proc, the kernel's process events (netlink), /dev/kmsg, and the kernel's trace of signals; its own memory is locked and it runs before everybody else,
// so that it goes on recording while they stall. It never judges, and never touches the subject before the plan's `last`.
//
// /cell/plan, a line each: `subject COMMAND`, `last MS`, `tail MS` (after the end of the subject or of the last hog), `mark KIB` (a dip is
// available memory below it), `bystander MIB`, `at MS COMMAND`, `log NAME PATH`. Times count from the subject's start.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { PIDS = 65536, ENDS = 128, DIPS = 64, LINES = 64, PLAN = 64, LOOK_MS = 5, BEAT_MS = 10 };

struct beat { volatile int64_t last, widest, beats; };

static int64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}
static void nap(int64_t ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, 0);
}
static ssize_t read_text(const char *path, char *to, size_t room) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, to, room - 1);
    if (file >= 0) close(file);
    to[got > 0 ? got : 0] = 0;
    return got;
}
static void write_text(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0) fprintf(stderr, "survival: %s: %m\n", path);
    if (file >= 0) close(file);
}
static long number_after(const char *text, const char *key) {
    const char *at = strstr(text, key);
    return at ? atol(at + strlen(key)) : -1;
}

// ---- those who must live -----------------------------------------------------------------------

// A beat is what any live program does: sleeps, takes and gives back a little memory, reads pages of a file, which a
// thrashing machine has to fetch again. Its widest gap is the stall that a person would feel.
static int canary(void) {
    int file = open("/run/beat", O_RDWR), pages = open("/disk/ballast", O_RDONLY);
    size_t ballast = 8 << 20;
    struct beat *beat = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    volatile char *read_from = mmap(0, ballast, PROT_READ, MAP_SHARED, pages, 0);
    if (beat == MAP_FAILED || read_from == MAP_FAILED) return 1;
    for (size_t at = 0; at < ballast; at += 4096) (void)read_from[at];
    uint32_t x = 1;
    for (beat->last = clock_ns();; beat->beats++) {
        nap(BEAT_MS);
        char *memory = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int at = 0; memory != MAP_FAILED && at < 65536; at += 4096) memory[at] = 1;
        if (memory != MAP_FAILED) munmap(memory, 65536);
        for (int i = 0; i < 4; i++) x = x * 1664525 + 1013904223, (void)read_from[x % ballast];
        int64_t now = clock_ns(), gap = now - beat->last;
        if (gap > beat->widest) beat->widest = gap;
        beat->last = now;
    }
}
static int bystander(const char *mib) {
    size_t bytes = strtoul(mib, 0, 10) << 20;
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
    for (size_t at = 0;; nap(50)) memory[at = (at + 262144) % bytes]++;
}

// ---- the answer --------------------------------------------------------------------------------

static FILE *answer;

static void put_string(const char *text, size_t length) {
    fputc('"', answer);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') fprintf(answer, "\\%c", c);
        else if (c < 32 || c == 127) fprintf(answer, "\\u%04x", c);
        else fputc(c, answer);
    }
    fputc('"', answer);
}

// ---- who lives, from the kernel's process events -----------------------------------------------

struct life { int pid; char comm[16], place[80]; };
struct end { int64_t at; int pid, status; char comm[16], place[80]; };

static struct life *lives;
static struct end ends[ENDS];
static int ended, ends_lost, events, hogs, hogs_ever;
static int64_t hogs_gone;

static struct life *life_of(int pid) { return &lives[pid & (PIDS - 1)]; }

static int is_hog(const struct life *life) { return life->pid && !strcmp(life->comm, "hog"); }

static void learn(int pid) {
    struct life *life = life_of(pid);
    char path[64], text[256];
    hogs -= is_hog(life);
    life->pid = pid;
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    if (read_text(path, text, sizeof text) > 0) snprintf(life->comm, sizeof life->comm, "%.*s", (int)strcspn(text, "\n"), text);
    snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
    if (read_text(path, text, sizeof text) > 3) snprintf(life->place, sizeof life->place, "%.*s", (int)strcspn(text + 3, "\n"), text + 3);
    hogs += is_hog(life), hogs_ever += is_hog(life);
}
static void forked(int child, int parent) {
    struct life *life = life_of(child), *of = life_of(parent);
    *life = (struct life){.pid = child};
    if (of->pid != parent) return;
    memcpy(life->comm, of->comm, sizeof life->comm);
    memcpy(life->place, of->place, sizeof life->place);
    hogs += is_hog(life), hogs_ever += is_hog(life);
}
static void gone(int pid, int status) {
    struct life *life = life_of(pid);
    if (life->pid != pid) return;
    if (ended < ENDS) {
        ends[ended] = (struct end){.at = clock_ns(), .pid = pid, .status = status};
        memcpy(ends[ended].comm, life->comm, sizeof life->comm);
        memcpy(ends[ended++].place, life->place, sizeof life->place);
    } else ends_lost++;
    if (is_hog(life) && --hogs == 0) hogs_gone = clock_ns();
    life->pid = 0;
}
static void listen_to_processes(void) {
    events = socket(PF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
    struct sockaddr_nl here = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    int room = 4 << 20;
    setsockopt(events, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    struct __attribute__((packed, aligned(4))) {
        struct nlmsghdr head;
        struct cn_msg message;
        enum proc_cn_mcast_op word;
    } ask = {{.nlmsg_len = sizeof ask, .nlmsg_type = NLMSG_DONE},
             {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof ask.word}, PROC_CN_MCAST_LISTEN};
    if (bind(events, (void *)&here, sizeof here) || send(events, &ask, sizeof ask, 0) < 0) perror("survival: process events");
}
static void hear_processes(void) {
    char room[8192] __attribute__((aligned(8)));
    ssize_t got;
    while ((got = recv(events, room, sizeof room, MSG_DONTWAIT)) > 0) {
        size_t left = (size_t)got;
        for (struct nlmsghdr *head = (void *)room; NLMSG_OK(head, left); head = NLMSG_NEXT(head, left)) {
            struct proc_event *event = (void *)((struct cn_msg *)NLMSG_DATA(head))->data;
            if (event->what == PROC_EVENT_FORK && event->event_data.fork.child_pid == event->event_data.fork.child_tgid)
                forked(event->event_data.fork.child_pid, event->event_data.fork.parent_tgid);
            else if (event->what == PROC_EVENT_EXEC) learn(event->event_data.exec.process_tgid);
            else if (event->what == PROC_EVENT_EXIT && event->event_data.exit.process_pid == event->event_data.exit.process_tgid)
                gone(event->event_data.exit.process_tgid, (int)event->event_data.exit.exit_code);
        }
    }
}

// ---- what the kernel killed --------------------------------------------------------------------

static int kernel_log;
static char *kernel_lines[LINES];
static int kernel_said, kernel_lost;

static void hear_kernel(void) {
    char line[1024];
    ssize_t got;
    while ((got = read(kernel_log, line, sizeof line - 1)) > 0 || (got < 0 && errno == EPIPE)) {
        if (got < 0) { kernel_lost++; continue; }
        line[got] = 0;
        line[strcspn(line, "\n")] = 0;
        char *text = strchr(line, ';');
        if (!text || !strstr(text, "oom-kill:")) continue;
        if (kernel_said < LINES) kernel_lines[kernel_said++] = strdup(text + 1);
        else kernel_lost++;
    }
}

// ---- who signals the hogs ----------------------------------------------------------------------

#define TRACE "/sys/kernel/tracing"

static void trace_signals(void) {
    if (mount("trace", TRACE, "tracefs", 0, 0)) perror("survival: tracefs");
    write_text(TRACE "/buffer_size_kb", "64");
    write_text(TRACE "/trace_clock", "mono");
    write_text(TRACE "/events/signal/signal_generate/filter", "(sig == 9 || sig == 15) && comm == \"hog\"");
    write_text(TRACE "/events/signal/signal_generate/enable", "1");
}

// ---- the plan ----------------------------------------------------------------------------------

struct act { int64_t at; const char *command; int done; };
struct log { const char *name, *path; };
static struct act acts[PLAN];
static struct log logs[PLAN];
static int act_count, log_count;
static const char *subject = "", *innocent = "";
static int64_t last = 10000, tail = 2000, mark;

static void read_plan(void) {
    static char text[16384];
    read_text("/cell/plan", text, sizeof text);
    for (char *line = strtok(text, "\n"); line; line = strtok(0, "\n")) {
        char *word = strchr(line, ' ');
        if (!word) continue;
        *word++ = 0;
        char *second = strchr(word, ' ');
        if (!strcmp(line, "subject")) subject = word;
        else if (!strcmp(line, "last")) last = atoll(word);
        else if (!strcmp(line, "tail")) tail = atoll(word);
        else if (!strcmp(line, "mark")) mark = atoll(word);
        else if (!strcmp(line, "bystander")) innocent = word;
        else if (second && !strcmp(line, "at") && act_count < PLAN) acts[act_count++] = (struct act){atoll(word), second + 1, 0};
        else if (second && !strcmp(line, "log") && log_count < PLAN) *second = 0, logs[log_count++] = (struct log){word, second + 1};
    }
}

// Starts a command in a cgroup as an ordinary process: its own session, no locked memory, no favour from the OOM killer.
static int start(const char *place, const char *log, const char *command) {
    int pid = fork();
    if (pid) return pid;
    struct sched_param plain = {0};
    char path[128], me[16];
    sched_setscheduler(0, SCHED_OTHER, &plain);
    munlockall();
    setsid();
    snprintf(path, sizeof path, "/sys/fs/cgroup/%s/cgroup.procs", place);
    snprintf(me, sizeof me, "%d", getpid());
    write_text(path, me);
    write_text("/proc/self/oom_score_adj", "0");
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(open(log, O_WRONLY | O_CREAT | O_APPEND, 0644), 1);
    dup2(1, 2);
    execl("/bin/busybox", "sh", "-c", command, (char *)0);
    _exit(127);
}

// ---- the record --------------------------------------------------------------------------------

// `turned` is when it last fell by a further MiB below `low`: afterwards memory may trickle away, but no more runs out.
struct dip { int64_t from, to, least_at, turned; long least, low; };
static struct dip dips[DIPS];
static int dip_count;
static long total, first, least, final_kib, guard_rss, guard_locked, guard_pinned;
static int64_t begun, least_at, subject_end = -1;
static int subject_pid, subject_status, in_dip;

// Free pages on the lists of the CPUs, in KiB: whoever runs there takes them first, and `MemAvailable` does not count them.
static long parked(void) {
    static char text[65536];
    long pages = 0;
    if (read_text("/proc/zoneinfo", text, sizeof text) <= 0) return 0;
    for (const char *at = text; (at = strstr(at, " count:")); at++) pages += number_after(at, " count:");
    return pages * 4;
}
static void look_at_memory(int meminfo, int64_t now) {
    char text[2048];
    ssize_t got = pread(meminfo, text, sizeof text - 1, 0);
    text[got > 0 ? got : 0] = 0;
    long available = number_after(text, "MemAvailable:");
    if (!total) total = number_after(text, "MemTotal:"), first = least = available;
    if (available < least) least = available, least_at = now;
    final_kib = available;
    if (available < mark) available += parked();
    if (available < mark && !in_dip && dip_count < DIPS) in_dip = 1, dips[dip_count++] = (struct dip){now, -1, now, now, available, available};
    if (!in_dip) return;
    struct dip *dip = &dips[dip_count - 1];
    if (available + 1024 <= dip->low) dip->low = available, dip->turned = now;
    if (available < dip->least) dip->least = available, dip->least_at = now;
    if (available >= mark) in_dip = 0, dip->to = now;
}
static void look_at_guard(void) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", subject_pid);
    if (read_text(path, text, sizeof text) <= 0) return;
    long rss = number_after(text, "VmRSS:"), locked = number_after(text, "VmLck:");
    // Really in RAM and locked there; `VmLck` counts all address space that may become so.
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", subject_pid);
    long pinned = read_text(path, text, sizeof text) > 0 ? number_after(text, "Locked:") : 0;
    if (pinned > guard_pinned) guard_pinned = pinned;
    if (rss > guard_rss) guard_rss = rss;
    if (locked > guard_locked) guard_locked = locked;
}
static void reap(int64_t now) {
    int status, pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == subject_pid && subject_end < 0) subject_end = now, subject_status = status;
}
static void hear_all(int64_t now) {
    hear_processes();
    hear_kernel();
    reap(now);
}
static double ms(int64_t at) { return at < 0 ? -1 : (double)(at - begun) / 1e6; }

static void put_ends(void) {
    fprintf(answer, "\"ends_lost\":%d,\"ends\":[", ends_lost);
    for (int i = 0; i < ended; i++) {
        struct end *end = &ends[i];
        fprintf(answer, "%s{\"ms\":%.1f,\"pid\":%d,\"signal\":%d,\"code\":%d,\"comm\":", i ? "," : "", ms(end->at), end->pid,
                end->status & 127, end->status >> 8 & 255);
        put_string(end->comm, strlen(end->comm));
        fputs(",\"place\":", answer);
        put_string(end->place, strlen(end->place));
        fputc('}', answer);
    }
    fputs("],", answer);
}
static void put_kernel(void) {
    fprintf(answer, "\"kernel_lost\":%d,\"kernel\":[", kernel_lost);
    for (int i = 0; i < kernel_said; i++) {
        if (i) fputc(',', answer);
        put_string(kernel_lines[i], strlen(kernel_lines[i]));
    }
    fputs("],\"dips\":[", answer);
    for (int i = 0; i < dip_count; i++)
        fprintf(answer, "%s{\"from_ms\":%.1f,\"to_ms\":%.1f,\"least_ms\":%.1f,\"turned_ms\":%.1f,\"least_kib\":%ld}", i ? "," : "", ms(dips[i].from),
                ms(dips[i].to), ms(dips[i].least_at), ms(dips[i].turned), dips[i].least);
    fputs("],", answer);
}
// The first SIGTERM or SIGKILL to a hog before the witness itself ends things; a kernel thread's and the kernel's own count, too.
static void put_signal(int64_t stopped) {
    static char text[131072];
    double at = 0;
    int number = 0;
    char from[32] = "";
    if (read_text(TRACE "/trace", text, sizeof text) > 0)
        for (char *line = strtok(text, "\n"); line && !*from; line = strtok(0, "\n")) {
            char *what = strstr(line, ": signal_generate: sig="), *name = line + strspn(line, " ");
            char *since = what;
            while (since && since > line && since[-1] != ' ') since--;
            char *pid = strchr(name, ' ');
            while (pid && pid > name && *pid != '-') pid--;
            if (*line == '#' || !what || !pid || atof(since) * 1e9 < (double)begun) continue;
            if (atof(since) * 1e9 > (double)stopped) break;
            at = atof(since), number = atoi(strchr(what, '=') + 1);
            snprintf(from, sizeof from, "%.*s", (int)(pid - name), name);
        }
    if (!*from) { fputs("\"signal\":null,", answer); return; }
    fprintf(answer, "\"signal\":{\"ms\":%.1f,\"number\":%d,\"from\":", at * 1e3 - (double)begun / 1e6, number);
    put_string(from, strlen(from));
    fputs("},", answer);
}
static void put_logs(void) {
    static char text[262144];
    fputs("\"logs\":{", answer);
    for (int i = 0; i < log_count; i++) {
        ssize_t got = read_text(logs[i].path, text, sizeof text);
        fputs(i ? "," : "", answer);
        put_string(logs[i].name, strlen(logs[i].name));
        fputc(':', answer);
        put_string(text, got > 0 ? (size_t)got : 0);
    }
    fputs("}", answer);
}
static int open_answer(void) {
    int port = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    struct termios plain;
    tcgetattr(port, &plain);
    cfmakeraw(&plain);
    tcsetattr(port, TCSANOW, &plain);
    answer = fdopen(port, "w");
    return answer ? 0 : -1;
}
static int present(int pid) { return life_of(pid)->pid == pid; }

static int record(void) {
    read_plan();
    lives = calloc(PIDS, sizeof *lives);
    struct sched_param first_of_all = {.sched_priority = 50};
    sched_setscheduler(0, SCHED_FIFO, &first_of_all);
    write_text("/proc/self/oom_score_adj", "-1000");
    listen_to_processes();
    trace_signals();
    kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    lseek(kernel_log, 0, SEEK_END);
    int meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC), file = open("/run/beat", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ftruncate(file, 4096)) return 1;
    struct beat *beat = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    int canary_pid = start("people", "/run/people.log", "exec /bin/canary"), bystander_pid = 0;
    if (*innocent) {
        char command[64];
        snprintf(command, sizeof command, "exec /bin/bystander %s", innocent);
        bystander_pid = start("people", "/run/people.log", command);
    }
    for (int64_t until = clock_ns() + 1000000000; clock_ns() < until; nap(LOOK_MS)) hear_all(clock_ns());

    ended = ends_lost = 0;
    double before = (double)beat->widest / 1e6;
    beat->widest = 0;
    begun = least_at = clock_ns();
    look_at_memory(meminfo, begun);
    subject_pid = start("guard", "/run/subject.log", subject);
    int64_t now = begun, late = 0;
    for (int64_t before_nap = begun, looks = 0; now - begun < last * 1000000; now = clock_ns(), looks++) {
        if (now - before_nap > late) late = now - before_nap;
        look_at_memory(meminfo, now);
        hear_all(now);
        if (looks % 20 == 0) look_at_guard();
        for (int i = 0; i < act_count; i++)
            if (!acts[i].done && now - begun >= acts[i].at * 1000000) acts[i].done = start("people", "/run/acts.log", acts[i].command);
        if (subject_end >= 0 && now - subject_end > tail * 1000000) break;
        if (hogs_ever && !hogs && now - hogs_gone > tail * 1000000) break;
        before_nap = now;
        nap(LOOK_MS);
    }
    int64_t stopped = now, open_gap = now - beat->last, widest = beat->widest > open_gap ? beat->widest : open_gap;
    int canary_lives = present(canary_pid), bystander_lives = present(bystander_pid), subject_lives = subject_end < 0;
    int hogs_left = hogs;
    long back = final_kib;
    // Whoever still runs is asked to end in good order: that is tried, too.
    if (subject_lives) kill(subject_pid, SIGTERM);
    for (int64_t until = now + 15000000000; subject_end < 0 && now < until; now = clock_ns(), nap(LOOK_MS)) hear_all(now);

    if (open_answer()) return 1;
    fprintf(answer, "{\"total_kib\":%ld,\"first_kib\":%ld,\"least_kib\":%ld,\"least_ms\":%.1f,\"back_kib\":%ld,\"stopped_ms\":%.1f,", total,
            first, least, ms(least_at), back, ms(stopped));
    fprintf(answer, "\"canary\":{\"alive\":%s,\"widest_ms\":%.1f,\"before_ms\":%.1f,\"beats\":%lld},", canary_lives ? "true" : "false",
            (double)widest / 1e6, before, (long long)beat->beats);
    fprintf(answer, "\"bystander_alive\":%s,\"hogs_ever\":%d,\"hogs_left\":%d,\"witness_late_ms\":%.1f,", !bystander_pid ? "null" : bystander_lives ? "true" : "false",
            hogs_ever, hogs_left, (double)late / 1e6);
    fprintf(answer, "\"subject\":{\"pid\":%d,\"alive\":%s,\"ms\":%.1f,\"signal\":%d,\"code\":%d,\"rss_kib\":%ld,\"locked_kib\":%ld,\"pinned_kib\":%ld},", subject_pid,
            subject_lives ? "true" : "false", ms(subject_end), subject_status & 127, subject_status >> 8 & 255, guard_rss, guard_locked, guard_pinned);
    put_ends();
    put_kernel();
    put_signal(stopped);
    put_logs();
    fputs("}\n", answer);
    fflush(answer);
    tcdrain(fileno(answer));
    nap(50);
    reboot(RB_POWER_OFF);
    return 0;
}

int main(int count, char **words) {
    const char *name = strrchr(words[0], '/') ? strrchr(words[0], '/') + 1 : words[0];
    if (!strcmp(name, "canary")) return canary();
    if (!strcmp(name, "bystander") && count == 2) return bystander(words[1]);
    return record();
}
