//! Drawing sequences: commands that make sense, mostly, given those before them.

use super::step::Step;
use rimg_testkit::Rng;

/// An image that was asked for; whether it was made is not known here.
#[derive(Debug, Clone)]
struct Image {
    name: String,
    format: &'static str,
    size: u64,
    has_backing: bool,
    snapshots: u64,
    bitmaps: u64,
    /// A finished stream, which nobody can write to in place.
    is_stream: bool,
    /// Its clusters are smaller than the 64 KiB in which qemu-img commits.
    is_fine: bool,
}

impl Image {
    fn new(name: String, format: &'static str, size: u64) -> Self {
        Self {
            name,
            format,
            size,
            has_backing: false,
            snapshots: 0,
            bitmaps: 0,
            is_stream: false,
            is_fine: format == "qcow",
        }
    }
}

/// Draws `count` steps over images of `formats`.
pub(super) fn draw(rng: &mut Rng, count: u64, formats: &[&'static str]) -> Vec<Step> {
    let mut drawer = Drawer { rng, formats, images: Vec::new(), made: 0 };
    (0..count).map(|_| drawer.step()).collect()
}

struct Drawer<'a> {
    rng: &'a mut Rng,
    formats: &'a [&'static str],
    images: Vec<Image>,
    /// How many names were given out.
    made: u64,
}

/// Words of a command line, from anything that can be printed.
macro_rules! words {
    ($($word:expr),* $(,)?) => { vec![$($word.to_string()),*] };
}

impl Drawer<'_> {
    fn step(&mut self) -> Step {
        if self.images.is_empty() || (self.images.len() < 6 && self.rng.one_in(5)) {
            return self.create();
        }
        match self.rng.below(40) {
            0..=9 => self.io(),
            10..=15 => self.convert(),
            16..=17 => self.info(),
            18..=20 => self.map(),
            21..=22 => self.check(),
            23..=24 => self.compare(),
            25..=27 => self.resize(),
            28..=30 => self.snapshot(),
            31..=32 => self.bitmap(),
            33 => self.rebase(),
            34 => self.commit(),
            35..=36 => self.measure(),
            37 => self.amend(),
            _ => self.dd(),
        }
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// An index below `len`; 0 for nothing.
    fn below(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.rng.below(bound)).unwrap_or(0)
    }

    fn index(&mut self) -> usize {
        self.below(self.images.len())
    }

    fn image(&mut self) -> Image {
        let index = self.index();
        self.images[index].clone()
    }

    /// One of this format, if there is one; any other mostly fails.
    fn image_of(&mut self, formats: &[&str]) -> usize {
        let fitting: Vec<usize> = (0..self.images.len())
            .filter(|index| formats.contains(&self.images[*index].format))
            .collect();
        if fitting.is_empty() { self.index() } else { self.one(&fitting) }
    }

    fn new_name(&mut self) -> String {
        self.made += 1;
        format!("i{}", self.made)
    }

    fn size(&mut self) -> u64 {
        self.one(&[
            512,
            64 << 10,
            // Within a cluster, and within its last subcluster.
            195 * 512,
            (2 << 20) - 512,
            1 << 20,
            (1 << 20) + 512,
            3 << 20,
            10 << 20,
            33 << 20,
            (65 << 20) + 1024,
        ])
    }

    fn create(&mut self) -> Step {
        let format = self.one(self.formats);
        let name = self.new_name();
        let size = self.size();
        let mut words = words!["create"];
        if self.rng.one_in(3) {
            words.push("-q".to_owned());
        }
        words.extend(words!["-f", format]);
        let mut options = self.create_options(format);
        let mut has_backing = false;
        let mut gives_size = true;
        let overlays = ["qcow2", "qed", "qcow", "vmdk"];
        if !self.images.is_empty() && overlays.contains(&format) && self.rng.one_in(2) {
            let mut below = self.image();
            // These do not note of what format that is: a fixed VHD would be taken for raw.
            if ["qcow", "qed"].contains(&format) && below.format == "vpc" {
                let index = self.image_of(&["raw", "qcow2"]);
                below = self.images[index].clone();
            }
            if ["qcow", "qed"].contains(&format) && below.format == "vpc" {
                return self.info();
            }
            has_backing = true;
            gives_size = !self.rng.one_in(2);
            if self.rng.one_in(4) {
                options.push(format!("backing_file={},backing_fmt={}", below.name, below.format));
            } else {
                words.extend(words!["-b", below.name, "-F", below.format]);
            }
        }
        if !options.is_empty() {
            words.extend(words!["-o", options.join(",")]);
        }
        words.push(name.clone());
        if gives_size {
            words.push(self.size_word(size));
        }
        let step = Step::img(words).making(&name, format);
        let new = Image::new(name, format, size);
        let text = step.to_string();
        let is_fine = new.is_fine || text.contains("_size=512") || text.contains("_size=4k");
        self.images.push(Image { has_backing, is_fine, ..new });
        step
    }

    /// A size with or without a suffix.
    fn size_word(&mut self, size: u64) -> String {
        match () {
            () if size.is_multiple_of(1 << 20) && self.rng.one_in(2) => format!("{}M", size >> 20),
            () if size.is_multiple_of(1 << 10) && self.rng.one_in(2) => format!("{}k", size >> 10),
            () => size.to_string(),
        }
    }

    fn create_options(&mut self, format: &str) -> Vec<String> {
        let known: &[(&str, &[&str])] = match format {
            "raw" => &[("preallocation", &["off", "falloc", "full"])],
            "qcow2" => &[
                ("cluster_size", &["512", "4k", "64k", "2M"]),
                ("compat", &["0.10", "1.1", "v3"]),
                ("refcount_bits", &["1", "8", "16", "64"]),
                ("lazy_refcounts", &["on", "off"]),
                ("extended_l2", &["on"]),
                ("preallocation", &["off", "metadata", "full"]),
                ("compression_type", &["zlib", "zstd"]),
            ],
            "qed" => &[("cluster_size", &["4k", "64k", "1M"]), ("table_size", &["1", "4", "16"])],
            "vmdk" => &[
                (
                    "subformat",
                    &[
                        "monolithicSparse",
                        "monolithicFlat",
                        "twoGbMaxExtentSparse",
                        "twoGbMaxExtentFlat",
                        "streamOptimized",
                    ],
                ),
                ("adapter_type", &["ide", "lsilogic", "buslogic", "legacyESX"]),
                ("zeroed_grain", &["on"]),
                ("compat6", &["on"]),
            ],
            "vdi" => &[("preallocation", &["off", "metadata"])],
            "vpc" => &[("subformat", &["dynamic", "fixed"]), ("force_size", &["on", "off"])],
            "vhdx" => &[
                ("subformat", &["dynamic", "fixed"]),
                ("block_size", &["1M", "8M"]),
                ("block_state_zero", &["on", "off"]),
                ("log_size", &["1M", "2M"]),
            ],
            "parallels" => &[("cluster_size", &["64k", "1M"])],
            _ => &[],
        };
        let mut options = Vec::new();
        for (name, values) in known {
            if self.rng.one_in(4) {
                options.push(format!("{name}={}", self.one(values)));
            }
        }
        if self.rng.one_in(40) {
            options.push("nonsense=1".to_owned());
        }
        options
    }

    /// A range of an image in sectors, now and then behind its end.
    fn range(&mut self, size: u64) -> (u64, u64) {
        let sectors = size / 512 + u64::from(self.rng.one_in(8));
        let at = self.rng.below(sectors.max(1)) * 512;
        let longest = self.one(&[1, 8, 128, 129, 512, 3000]);
        let len = (1 + self.rng.below(longest)) * 512;
        (at, if self.rng.one_in(12) { len } else { len.min(size.saturating_sub(at)).max(512) })
    }

    fn io(&mut self) -> Step {
        let image = self.image();
        if image.is_stream {
            return self.info();
        }
        let (at, len) = self.range(image.size);
        let pattern = 1 + self.rng.below(200);
        let request = match self.rng.below(10) {
            0..=5 => format!("write -q -P {pattern} {at} {len}"),
            6..=7 => format!("write -q -z {at} {len}"),
            8 => format!("discard -q {at} {len}"),
            _ => format!("write -q -z -u {at} {len}"),
        };
        Step::io(image.format, request, &image.name)
    }

    fn convert(&mut self) -> Step {
        let source = self.image();
        let format = self.one(self.formats);
        let mut words = words!["convert"];
        for (flag, one_in) in [("-p", 30), ("-q", 8), ("-W", 8), ("-U", 20)] {
            if self.rng.one_in(one_in) {
                words.push(flag.to_owned());
            }
        }
        // A fixed VHD says at its end what it is, and is taken for raw unless somebody says more.
        if source.format == "vpc" || !self.rng.one_in(6) {
            words.extend(words!["-f", source.format]);
        }
        if self.rng.one_in(6) {
            words.extend(words!["-S", self.one(&["0", "512", "4k", "64k", "3k", "1"])]);
        }
        if self.rng.one_in(10) {
            words.extend(words!["-m", self.one(&["1", "4", "16", "17"])]);
        }
        for option in [["-r", "1G"], ["-t", "writeback"], ["-t", "unsafe"], ["-T", "none"]] {
            if self.rng.one_in(30) {
                words.extend(option.map(str::to_owned));
            }
        }
        if self.rng.one_in(25) {
            let flag = self.one(&["--salvage", "--bitmaps", "--target-is-zero"]);
            // Those of Parallels images cannot be seen by rimg.
            if source.format != "parallels" {
                words.push(flag.to_owned());
            }
        }
        let streams = format == "vmdk" && self.rng.one_in(3);
        let mut options = if self.rng.one_in(2) { self.create_options(format) } else { Vec::new() };
        if streams {
            options = words!["subformat=streamOptimized"];
        }
        if self.rng.one_in(5) || (streams && self.rng.one_in(2)) {
            words.push("-c".to_owned());
        }
        let snapshots = source.snapshots;
        if snapshots > 0 && self.rng.one_in(3) {
            words.extend(words!["-l", format!("s{}", self.rng.below(snapshots + 1))]);
        }
        // Into one that is there, or a new one. qemu-img writes zeroes as data where a format of
        // its has nothing else, and rimg leaves out what is zero already: that shows in maps.
        if self.rng.one_in(8) {
            let index = self.image_of(&["raw", "qcow2"]);
            let target = self.images[index].clone();
            if !["raw", "qcow2"].contains(&target.format) {
                return self.info();
            }
            words.extend(words!["-n", "-O", target.format, source.name, target.name]);
            return Step::img(words);
        }
        words.extend(words!["-O", format]);
        if !options.is_empty() {
            words.extend(words!["-o", options.join(",")]);
        }
        let name = self.new_name();
        words.push(source.name.clone());
        let mut size = source.size;
        if self.rng.one_in(12) {
            let second = self.image_of(&[source.format]);
            let second = self.images[second].clone();
            size += second.size;
            words.push(second.name);
        }
        words.push(name.clone());
        let step = Step::img(words).making(&name, format);
        let is_stream = step.to_string().contains("streamOptimized");
        self.images.push(Image { is_stream, ..Image::new(name, format, size) });
        step
    }

    /// The format of an image, mostly.
    fn format_words(&mut self, image: &Image) -> Vec<String> {
        match self.rng.below(8) {
            0 => Vec::new(),
            1 => words![format!("--format={}", image.format)],
            _ => words!["-f", image.format],
        }
    }

    /// The name of an image, in one of the ways to say it; its format, mostly, goes to `words`.
    fn name(&mut self, image: &Image, words: &mut Vec<String>) -> String {
        let (format, name) = (image.format, &image.name);
        match self.rng.below(16) {
            0 => {
                words.push("--image-opts".to_owned());
                format!("driver={format},file.filename={name}")
            }
            1 => {
                let file = format!("{{\"driver\": \"file\", \"filename\": \"{name}\"}}");
                format!("json:{{\"driver\": \"{format}\", \"file\": {file}}}")
            }
            _ => {
                words.extend(self.format_words(image));
                name.clone()
            }
        }
    }

    fn info(&mut self) -> Step {
        let image = self.image();
        let mut words = words!["info"];
        let name = self.name(&image, &mut words);
        if self.rng.one_in(4) {
            words.push("--backing-chain".to_owned());
        }
        self.json(&mut words);
        words.push(name);
        Step::img(words)
    }

    fn json(&mut self, words: &mut Vec<String>) {
        if self.rng.one_in(2) {
            words.push("--output=json".to_owned());
        }
    }

    fn map(&mut self) -> Step {
        let image = self.image();
        let mut words = words!["map"];
        let name = self.name(&image, &mut words);
        self.json(&mut words);
        if self.rng.one_in(4) {
            let (at, len) = self.range(image.size);
            words.extend(words!["-s", at, "-l", len]);
        }
        words.push(name);
        Step::img(words)
    }

    fn check(&mut self) -> Step {
        let image = self.image();
        let mut words = words!["check"];
        let name = self.name(&image, &mut words);
        self.json(&mut words);
        if self.rng.one_in(3) {
            words.extend(words!["-r", self.one(&["leaks", "all", "some"])]);
        }
        words.push(name);
        Step::img(words)
    }

    fn compare(&mut self) -> Step {
        let (a, b) = (self.image(), self.image());
        let mut words = words!["compare", "-f", a.format, "-F", b.format];
        // In strict mode qemu-img compares, for other formats, where files end below the disks,
        // and what it knows of parts of clusters.
        let is_plain =
            |image: &Image| ["raw", "qed", "qcow"].contains(&image.format) && !image.has_backing;
        if self.rng.one_in(5) && a.format == b.format && is_plain(&a) && is_plain(&b) {
            words.push("-s".to_owned());
        }
        if self.rng.one_in(5) {
            words.push("-q".to_owned());
        }
        words.extend([a.name, b.name]);
        Step::img(words)
    }

    fn resize(&mut self) -> Step {
        let index = self.image_of(&["raw", "qcow2", "qed", "vhdx", "parallels", "vdi"]);
        let image = self.images[index].clone();
        let mut words = words!["resize"];
        words.extend(self.format_words(&image));
        let size = self.size();
        let (wanted, after) = match self.rng.below(6) {
            0 => (format!("+{size}"), image.size + size),
            1 => (format!("-{size}"), image.size.saturating_sub(size)),
            _ => (self.size_word(size), size),
        };
        if after < image.size && !self.rng.one_in(4) {
            words.push("--shrink".to_owned());
        }
        // qemu-img's new sectors may show what was in bitmaps.
        if image.bitmaps == 0 && self.rng.one_in(3) {
            let mode = self.one(&["off", "metadata", "falloc", "full"]);
            words.push(format!("--preallocation={mode}"));
        }
        words.extend([image.name, wanted]);
        self.images[index].size = after;
        Step::img(words)
    }

    fn snapshot(&mut self) -> Step {
        let index = self.image_of(&["qcow2"]);
        let image = self.images[index].clone();
        let known = |rng: &mut Rng| format!("s{}", rng.below(image.snapshots + 1));
        let words = match self.rng.below(6) {
            0..=2 => {
                self.images[index].snapshots += 1;
                words!["snapshot", "-c", format!("s{}", image.snapshots), image.name]
            }
            3 => words!["snapshot", "-a", known(self.rng), image.name],
            4 => words!["snapshot", "-d", known(self.rng), image.name],
            _ if self.rng.one_in(3) => words!["snapshot", "-U", "-l", image.name],
            _ => words!["snapshot", "-l", image.name],
        };
        Step::img(words)
    }

    fn bitmap(&mut self) -> Step {
        let index = self.image_of(&["qcow2"]);
        let image = self.images[index].clone();
        let known = format!("b{}", self.rng.below(image.bitmaps + 1));
        let mut words = words!["bitmap"];
        if self.rng.one_in(2) {
            words.extend(words!["-f", image.format]);
        }
        let name = match self.rng.below(8) {
            0..=3 => {
                self.images[index].bitmaps += 1;
                words.push("--add".to_owned());
                if self.rng.one_in(3) {
                    words.extend(words!["-g", self.one(&["512", "64k", "1M", "3k"])]);
                }
                format!("b{}", image.bitmaps)
            }
            4 => {
                words.push("--remove".to_owned());
                known
            }
            5 => {
                words.push("--clear".to_owned());
                known
            }
            6 => {
                words.push(self.one(&["--enable", "--disable"]).to_owned());
                known
            }
            _ => {
                let from = format!("b{}", self.rng.below(image.bitmaps + 1));
                words.extend(words!["--merge", from]);
                known
            }
        };
        words.extend([image.name, name]);
        Step::img(words)
    }

    fn rebase(&mut self) -> Step {
        let index = self.image_of(&["qcow2", "qed"]);
        let image = self.images[index].clone();
        let mut words = words!["rebase", "-f", image.format];
        if self.rng.one_in(3) {
            words.push("-u".to_owned());
        } else if self.rng.one_in(5) {
            words.push("-c".to_owned());
        }
        if index == 0 || self.rng.one_in(3) {
            words.extend(words!["-b", ""]);
        } else {
            // Only what was there before it: no image is below itself.
            let below = self.below(index);
            let below = self.images[below].clone();
            if image.format == "qed" && below.format == "vpc" {
                return self.info();
            }
            words.extend(words!["-F", below.format, "-b", below.name]);
        }
        words.push(image.name);
        Step::img(words)
    }

    fn commit(&mut self) -> Step {
        let overlays: Vec<usize> =
            (0..self.images.len()).filter(|index| self.images[*index].has_backing).collect();
        let index = if overlays.is_empty() { self.index() } else { self.one(&overlays) };
        let image = self.images[index].clone();
        // What is written around the data shows in the map of the image below.
        if image.is_fine {
            return self.info();
        }
        let mut words = words!["commit", "-f", image.format];
        if self.rng.one_in(4) {
            words.push("-q".to_owned());
        }
        // rimg empties what was committed in every format, qemu-img in these; -d forbids it.
        if image.format != "qcow2" || self.rng.one_in(4) {
            words.push("-d".to_owned());
        }
        words.push(image.name);
        Step::img(words)
    }

    fn measure(&mut self) -> Step {
        let mut words = words!["measure"];
        if self.rng.one_in(2) {
            words.push("--output=json".to_owned());
        }
        let format = self.one(&["raw", "qcow2", "luks", "vmdk"]);
        words.extend(words!["-O", format]);
        if format == "qcow2" && self.rng.one_in(2) {
            let options = self.create_options(format);
            if !options.is_empty() {
                words.extend(words!["-o", options.join(",")]);
            }
        }
        if self.rng.one_in(4) {
            let size = self.size();
            words.extend(words!["--size", self.size_word(size)]);
        } else {
            // qemu-img takes all of a VHDX for data, which rimg does not.
            let image = self.image();
            let is_vhdx = |image: &Image| image.format == "vhdx";
            if is_vhdx(&image) || (image.has_backing && self.images.iter().any(is_vhdx)) {
                return self.info();
            }
            if image.snapshots > 0 && self.rng.one_in(3) {
                words.extend(words!["-l", format!("s{}", self.rng.below(image.snapshots + 1))]);
            }
            words.extend(words!["-f", image.format, image.name]);
        }
        Step::img(words)
    }

    fn amend(&mut self) -> Step {
        let index = self.image_of(&["qcow2"]);
        let image = self.images[index].clone();
        let option = self.one(&[
            "compat=0.10",
            "compat=1.1",
            "lazy_refcounts=on",
            "lazy_refcounts=off",
            "refcount_bits=64",
            "refcount_bits=16",
            "refcount_bits=7",
            "size=64M",
            "cluster_size=4k",
        ]);
        Step::img(words!["amend", "-f", image.format, "-o", option, image.name])
    }

    fn dd(&mut self) -> Step {
        let source = self.image();
        let format = self.one(self.formats);
        let name = self.new_name();
        let mut words = words!["dd", "-f", source.format, "-O", format];
        let block = self.one(&[512, 4096, 65536, 1 << 20]);
        words.extend(words![format!("bs={block}"), format!("if={}", source.name)]);
        let mut size = source.size;
        if self.rng.one_in(2) {
            let count = 20 + self.rng.below(100);
            size = size.min(count * block);
            words.push(format!("count={count}"));
        }
        // An overlay may be smaller than is known here, and a VHDX of no bytes is no subject.
        if format != "vhdx" && self.rng.one_in(2) {
            // Disks of no bytes are no subject of their own.
            let skip = self.rng.below((size / block).clamp(1, 20));
            size = size.saturating_sub(skip * block);
            words.push(format!("skip={skip}"));
        }
        words.push(format!("of={name}"));
        let step = Step::img(words).making(&name, format);
        let is_stream = step.to_string().contains("streamOptimized");
        self.images.push(Image { is_stream, ..Image::new(name, format, size) });
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_a_sequence() {
        let formats = ["raw", "qcow2", "vmdk"];
        let lines = |seed| -> Vec<String> {
            draw(&mut Rng::new(seed), 50, &formats).iter().map(ToString::to_string).collect()
        };
        assert_eq!(lines(7), lines(7));
        assert_ne!(lines(7), lines(8));
        assert!(lines(7)[0].starts_with("qemu-img create "));
    }
}
