//! A disk that takes a set time for each byte: a file system in memory, served by this program over FUSE.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// The kernel asks each time, as nothing here says that it need not.
const TTL: Duration = Duration::ZERO;

/// No inode's number is used again.
const GENERATION: Generation = Generation(0);

const BLOCK: u32 = 4096;

/// Room for 4 GiB, in blocks, whatever is there.
const BLOCKS: u64 = 1 << 20;

/// A folder that is a slow disk until this is dropped, for the thread that made it and whatever that starts.
pub(crate) struct SlowDisk {
    folder: PathBuf,
    /// Serves it, and unmounts it when it is dropped.
    _session: BackgroundSession,
}

impl SlowDisk {
    /// Mounts it on a folder that is made for it. All who write share so many bytes a second; what was written is read as fast
    /// as memory. `None` where the system has no FUSE, or lets nobody mount: said in a line, and a failure where a CI runs on
    /// a system that has it.
    pub(crate) fn on(folder: &Path, bytes_a_second: u64) -> Option<Self> {
        std::fs::create_dir(folder).unwrap();
        let (sender, receiver) = mpsc::channel();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("slow_disk".to_owned()), MountOption::NoExec];
        let tree = Mutex::new(Tree::default());
        let mounted = be_alone().and_then(|()| fuser::spawn_mount2(Served { tree, disk: sender }, folder, &config));
        match mounted {
            Ok(session) => {
                thread::spawn(move || answer(&receiver, bytes_a_second));
                Some(Self { folder: folder.to_owned(), _session: session })
            }
            Err(error) => {
                let why = format!("nobody may mount a file system of his own here (FUSE): {error}");
                let has_fuse = Path::new("/dev/fuse").exists();
                assert!(!has_fuse || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
                // Around the harness, which hides what a test that passes prints.
                io::stderr().write_all(format!("slow_disk.rs: a slow disk is not tested: {why}\n").as_bytes()).unwrap();
                None
            }
        }
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // At once, even if something is open there. The session does what needs fusermount.
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
    }
}

/// Gives this thread a mount namespace of its own, so that nothing stays mounted when this program is killed. Who may not do
/// that mounts with fusermount, if at all, which is seen by all.
fn be_alone() -> io::Result<()> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(nix::Error::EPERM) => Ok(()),
        unshared => {
            unshared?;
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            Ok(mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
        }
    }
}

/// What the disk is to do, in its order.
enum Work {
    Write(ReplyWrite, u32),
    /// Nothing is to be done but what came before it.
    Sync(ReplyEmpty),
}

/// Answers each when the time is up that it takes, until the file system is gone.
fn answer(works: &Receiver<Work>, bytes_a_second: u64) {
    for work in works {
        match work {
            Work::Write(reply, bytes) => {
                thread::sleep(Duration::from_secs_f64(f64::from(bytes) / bytes_a_second as f64));
                reply.written(bytes);
            }
            Work::Sync(reply) => reply.ok(),
        }
    }
}

/// The files and folders. What is removed is kept, as it may be open.
struct Tree {
    nodes: HashMap<INodeNo, Node>,
}

struct Node {
    content: Content,
    mode: u16,
    modified: SystemTime,
}

enum Content {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, INodeNo>),
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: HashMap::from([(INodeNo::ROOT, Node::new(Content::Folder(BTreeMap::new()), 0o755))]) }
    }
}

impl Node {
    fn new(content: Content, mode: u32) -> Self {
        Self { content, mode: (mode & 0o7777) as u16, modified: SystemTime::now() }
    }

    fn kind(&self) -> FileType {
        match self.content {
            Content::File(_) => FileType::RegularFile,
            Content::Folder(_) => FileType::Directory,
        }
    }
}

impl Tree {
    fn node(&mut self, inode: INodeNo) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&inode).ok_or(Errno::ENOENT)
    }

    fn file(&mut self, inode: INodeNo) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.node(inode)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Folder(_) => Err(Errno::EISDIR),
        }
    }

    fn folder(&mut self, inode: INodeNo) -> Result<&mut BTreeMap<OsString, INodeNo>, Errno> {
        match &mut self.node(inode)?.content {
            Content::Folder(names) => Ok(names),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }

    /// Whose it is is nobody's concern here: it is the one's who asks.
    fn attributes(&mut self, inode: INodeNo, request: &Request) -> Result<FileAttr, Errno> {
        let node = self.node(inode)?;
        let size = match &node.content {
            Content::File(bytes) => bytes.len() as u64,
            Content::Folder(_) => 0,
        };
        Ok(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: node.modified,
            mtime: node.modified,
            ctime: node.modified,
            crtime: node.modified,
            kind: node.kind(),
            perm: node.mode,
            nlink: 1,
            uid: request.uid(),
            gid: request.gid(),
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }

    fn look_up(&mut self, parent: INodeNo, name: &OsStr, request: &Request) -> Result<FileAttr, Errno> {
        let inode = *self.folder(parent)?.get(name).ok_or(Errno::ENOENT)?;
        self.attributes(inode, request)
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, node: Node, request: &Request) -> Result<FileAttr, Errno> {
        let inode = INodeNo(INodeNo::ROOT.0 + self.nodes.len() as u64);
        if self.folder(parent)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.folder(parent)?.insert(name.to_owned(), inode);
        self.nodes.insert(inode, node);
        self.attributes(inode, request)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        self.folder(parent)?.remove(name).map(drop).ok_or(Errno::ENOENT)
    }

    fn remove_folder(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let inode = *self.folder(parent)?.get(name).ok_or(Errno::ENOENT)?;
        if !self.folder(inode)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.remove(parent, name)
    }

    fn rename(&mut self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> Result<(), Errno> {
        self.folder(to.0)?;
        let inode = self.folder(from.0)?.remove(from.1).ok_or(Errno::ENOENT)?;
        self.folder(to.0)?.insert(to.1.to_owned(), inode);
        Ok(())
    }

    fn write(&mut self, inode: INodeNo, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let bytes = self.file(inode)?;
        bytes.resize(bytes.len().max(start + data.len()), 0);
        bytes[start..start + data.len()].copy_from_slice(data);
        self.node(inode)?.modified = SystemTime::now();
        Ok(())
    }

    fn read(&mut self, inode: INodeNo, offset: u64, size: u32) -> Result<&[u8], Errno> {
        let bytes = self.file(inode)?;
        let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        let end = bytes.len().min(start + size as usize);
        Ok(&bytes[start..end])
    }
}

/// As much of a file system as the program asks for. Calls that are not here are those that the kernel does without.
struct Served {
    tree: Mutex<Tree>,
    /// No more is under way than the kernel has requests open.
    disk: Sender<Work>,
}

impl Served {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reply that cannot be sent is dropped, which answers that it failed.
    fn is_for_disk(&self, work: Work) {
        let _ = self.disk.send(work);
    }
}

fn entry(reply: ReplyEntry, found: Result<FileAttr, Errno>) {
    match found {
        Ok(attributes) => reply.entry(&TTL, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn attributes(reply: ReplyAttr, found: Result<FileAttr, Errno>) {
    match found {
        Ok(attributes) => reply.attr(&TTL, &attributes),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.tree().look_up(parent, name, request));
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.tree().attributes(inode, request));
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.tree();
        let mut set = || {
            if let Some(mode) = mode {
                tree.node(inode)?.mode = (mode & 0o7777) as u16;
            }
            if let Some(size) = size {
                tree.file(inode)?.resize(usize::try_from(size).map_err(|_| Errno::EFBIG)?, 0);
            }
            tree.attributes(inode, request)
        };
        attributes(reply, set());
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let folder = Node::new(Content::Folder(BTreeMap::new()), mode);
        entry(reply, self.tree().add(parent, name, folder, request));
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.tree().add(parent, name, Node::new(Content::File(Vec::new()), mode), request) {
            Ok(made) => reply.created(&TTL, &made, GENERATION, FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree().read(inode, offset, size) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree().write(inode, offset, data) {
            Ok(()) => self.is_for_disk(Work::Write(reply, data.len() as u32)),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.is_for_disk(Work::Sync(reply));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        // None of renameat2(2)'s own.
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        empty(reply, self.tree().rename((parent, name), (new_parent, new_name)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree().remove(parent, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree().remove_folder(parent, name));
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut tree = self.tree();
        let mut names = vec![(inode, OsString::from(".")), (INodeNo::ROOT, OsString::from(".."))];
        match tree.folder(inode) {
            Ok(folder) => names.extend(folder.iter().map(|(name, inode)| (*inode, name.clone()))),
            Err(error) => return reply.error(error),
        }
        for ((inode, name), place) in names.into_iter().zip(0..).skip(offset as usize) {
            let kind = tree.node(inode).map_or(FileType::RegularFile, |node| node.kind());
            if reply.add(inode, place + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK, 255, BLOCK);
    }
}
