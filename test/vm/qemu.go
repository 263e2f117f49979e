// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/test/vm/wire"
)

// LSM is the list of security modules at boot, behind landlock, lockdown, yama and integrity.
type LSM string

// The lists that the lab has been tried with.
const (
	BPF         LSM = "bpf"
	AppArmor    LSM = "apparmor"
	AppArmorBPF LSM = "apparmor,bpf"
	SELinuxBPF  LSM = "selinux,bpf"
)

// Options describe a machine.
type Options struct {
	// Kernel is a kernel line: "6.1", "6.12" (default), "5.10" or "7".
	Kernel string
	// LSM is the list of security modules; default BPF.
	LSM LSM
	// Memory in MiB; default 1536. CPUs; default 2.
	Memory, CPUs int
	// ICount counts instructions: one CPU, one virtual nanosecond an instruction, idle time skipped.
	ICount bool
	// Network gives the guest a card behind QEMU's user network: the machine's loopback is 10.0.2.2 there.
	Network bool
	// Files are copied into the guest before its agent answers, from path here to path there: faster than Put.
	Files map[string]string
	// Share is a directory of this machine that the guest has, live and writable, as /share.
	Share string
	// Systemd makes Debian's systemd process 1; without it nothing runs but what is asked for.
	Systemd bool
	// Append is added to the kernel's command line.
	Append string
	// TestLimit ends a run of RunTests or TestPackage that hangs; default 20 minutes.
	TestLimit time.Duration
	// Console receives what the guest's serial console prints, as it comes; nil keeps it for errors only.
	Console io.Writer
	// Progress receives a line for each download and image built; nil discards them.
	Progress io.Writer
}

func (o Options) withDefaults() Options {
	if o.Kernel == "" {
		o.Kernel = "6.12"
	}
	if o.LSM == "" {
		o.LSM = BPF
	}
	if o.Memory == 0 {
		o.Memory = 1536
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.ICount {
		o.CPUs = 1
	}
	if o.TestLimit == 0 {
		o.TestLimit = 20 * time.Minute
	}
	if o.Console == nil {
		o.Console = io.Discard
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return o
}

// image is what a machine boots from.
type image struct {
	kernel kernel
	root   string
	initrd string
	// files is a tar archive, share virtiofsd's socket, socket the agent's; empty when there is none.
	files, share, socket string
}

func (o Options) commandLine() string {
	// no_timer_check: on a busy machine an emulated timer can miss the kernel's test of it, which is a panic.
	line := "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on" +
		" lsm=landlock,lockdown,yama,integrity," + string(o.LSM)
	if len(o.Files) > 0 {
		line += " muster.files=1"
	}
	if o.Share != "" {
		line += " muster.share=1"
	}
	if o.Systemd {
		// Without udev the console's device never appears to systemd, and it would wait for it.
		line += " muster.systemd=1 systemd.mask=serial-getty@ttyS0.service systemd.mask=getty@tty1.service"
	}
	if o.Append != "" {
		line += " " + o.Append
	}
	return line
}

// arguments are QEMU's.
func (o Options) arguments(img image) []string {
	args := []string{
		"-machine", "q35", "-cpu", "max", "-nodefaults", "-no-reboot", "-display", "none",
		"-m", strconv.Itoa(o.Memory), "-smp", strconv.Itoa(o.CPUs),
		"-kernel", img.kernel.image(), "-initrd", img.initrd, "-append", o.commandLine(),
		"-drive", "id=root,if=none,format=raw,snapshot=on,file=" + img.root, "-device", "virtio-blk-pci,drive=root",
		"-drive", "id=modules,if=none,format=raw,readonly=on,file=" + img.kernel.modules(),
		"-device", "virtio-blk-pci,drive=modules",
		"-serial", "mon:stdio",
	}
	if img.files != "" {
		args = append(args, "-drive", "id=files,if=none,format=raw,readonly=on,file="+img.files,
			"-device", "virtio-blk-pci,drive=files")
	}
	if img.share != "" {
		args = append(args, "-object", fmt.Sprintf("memory-backend-memfd,id=memory,size=%dM,share=on", o.Memory),
			"-numa", "node,memdev=memory", "-chardev", "socket,id=share,path="+img.share,
			"-device", "vhost-user-fs-pci,chardev=share,tag=share")
	}
	if img.socket != "" {
		args = append(args, "-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path="+img.socket,
			"-device", "virtserialport,chardev=agent,name="+wire.Port)
	}
	if o.Network {
		args = append(args, "-nic", "user,model=virtio-net-pci")
	}
	// The guest's CPUs take turns. With a thread for each, QEMU before 8.1 translates code while another CPU writes it,
	// and a kernel that patches its own text, as attaching does, dies of an int3 that is there no more.
	args = append(args, "-accel", "tcg,thread=single")
	if o.ICount {
		args = append(args, "-icount", "shift=0,sleep=off")
	}
	return args
}

const qemu = "qemu-system-x86_64"

// prepare fetches and builds all that a machine needs; dir takes what belongs to this machine alone.
func prepare(ctx context.Context, o Options, dir string) (image, error) {
	k, err := fetchKernel(ctx, o.Kernel, o.Progress)
	if err != nil {
		return image{}, err
	}
	root, err := fetchRoot(ctx, o.Progress)
	if err != nil {
		return image{}, err
	}
	guest := filepath.Join(dir, "guest")
	if err := BuildStatic(ctx, guest, "build", "github.com/muster-fleet/muster/test/vm/guest"); err != nil {
		return image{}, err
	}
	archive, err := initrd(guest, k.earlyDir())
	if err != nil {
		return image{}, err
	}
	img := image{kernel: k, root: root, initrd: filepath.Join(dir, "initrd")}
	if err := os.WriteFile(img.initrd, archive, 0o644); err != nil {
		return image{}, err
	}
	if len(o.Files) > 0 {
		img.files = filepath.Join(dir, "files.tar")
		if err := archiveFiles(img.files, o.Files); err != nil {
			return image{}, err
		}
	}
	return img, nil
}

// archiveFiles writes the disk that carries Options.Files.
func archiveFiles(path string, files map[string]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	for from, to := range files {
		if err := wire.Pack(tw, from, to); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), f.Close())
}

// BuildStatic runs go build or go test -c for the guest: without cgo, so that it needs nothing there.
func BuildStatic(ctx context.Context, target, verb string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{verb, "-buildvcs=false", "-ldflags=-s -w", "-o", target}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s %v: %w: %s", verb, args, err, tail(string(out), 4000))
	}
	return nil
}

// command is QEMU, ready to start. It dies with this process; while it lives it holds the slot.
func command(ctx context.Context, o Options, img image, slot *os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, qemu, o.arguments(img)...)
	cmd.ExtraFiles = []*os.File{slot}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Shell boots a machine with a root shell on the caller's terminal, until the shell ends.
func Shell(ctx context.Context, o Options) error {
	o = o.withDefaults()
	dir, err := os.MkdirTemp("", "muster-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	img, err := prepare(ctx, o, dir)
	if err != nil {
		return err
	}
	slot, err := takeSlot(ctx)
	if err != nil {
		return err
	}
	defer slot.Close()
	o.Append += " muster.shell=1"
	if o.Share != "" {
		img.share = filepath.Join(dir, "share")
		if _, err := startShare(ctx, o.Share, img.share, io.Discard); err != nil {
			return err
		}
	}
	cmd := command(ctx, o, img, slot)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// Fetch downloads kernels and builds the root image, so that later boots need no network.
func Fetch(ctx context.Context, kernels []string, progress io.Writer) error {
	for _, name := range kernels {
		if _, err := fetchKernel(ctx, name, progress); err != nil {
			return err
		}
	}
	_, err := fetchRoot(ctx, progress)
	return err
}
