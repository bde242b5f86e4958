/* herd COUNT: so many processes that only wait, ten to a session, for bench/look_cost.py. Small and without a library's
 * memory of their own: some 80 KiB each. They end with whoever reads this one's output: all read one pipe, its input. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Until nobody writes any more, and all that were started have ended. */
static int rest(void)
{
    char byte;
    while (read(0, &byte, 1) > 0 || wait(NULL) > 0)
        ;
    return 0;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 0;
    for (int number = 0; number < count; number += 10) {
        pid_t leader = fork();
        if (leader < 0)
            return 1;
        if (leader > 0)
            continue;
        setsid();
        for (int other = 1; other < 10 && number + other < count; other++) {
            pid_t child = fork();
            if (child < 0)
                return 1;
            if (child == 0)
                break;
        }
        _exit(rest());
    }
    puts("ready");
    fflush(stdout);
    return rest();
}
