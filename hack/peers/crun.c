/* crun for a containerd that is younger than it: Debian 12's crun refuses every version of the OCI
   specification but 1.0, and containerd writes 1.3.0. This overwrites that one word in the bundle, and
   becomes crun. hack/bench compiles it statically, with the path of crun as CRUN. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void older(const char *bundle) {
    static const char key[] = "{\"ociVersion\":\"", older[] = "1.0.2\"";
    char path[4096], head[sizeof key + sizeof older];
    snprintf(path, sizeof path, "%s/config.json", bundle);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    ssize_t size = pread(file, head, sizeof key - 1 + sizeof older - 1, 0);
    if (size == sizeof key - 1 + sizeof older - 1 && !memcmp(head, key, sizeof key - 1) &&
        head[size - 1] == '"')
        (void)!pwrite(file, older, sizeof older - 1, sizeof key - 1);
    close(file);
}

int main(int count, char **words) {
    for (int at = 1; at + 1 < count; at++)
        if (!strcmp(words[at], "--bundle")) older(words[at + 1]);
    execv(CRUN, words);
    perror(CRUN);
    return 127;
}
