/// The command that installs PostgreSQL on this system, as far as it can be told.
pub(super) fn command() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if cfg!(target_os = "freebsd") {
        "pkg install postgresql17-server postgresql17-client"
    } else {
        of_linux(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
    }
}

/// Reads `ID` and `ID_LIKE` of an os-release file, as os-release(5) defines them.
fn of_linux(os_release: &str) -> &'static str {
    let names = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace());
    for name in names {
        match name {
            "alpine" => return "apk add postgresql",
            "arch" => return "pacman -S postgresql",
            "fedora" | "rhel" | "centos" => return "dnf install postgresql-server",
            "suse" | "opensuse" | "sles" => return "zypper install postgresql-server",
            "nixos" => return "nix-shell -p postgresql",
            _ => {}
        }
    }
    "apt-get install postgresql"
}

#[cfg(test)]
mod tests {
    use super::of_linux;

    #[test]
    fn each_system_has_its_command() {
        assert_eq!(of_linux("PRETTY_NAME=\"Debian 12\"\nID=debian\n"), "apt-get install postgresql");
        assert_eq!(of_linux("ID=ubuntu\nID_LIKE=debian\n"), "apt-get install postgresql");
        assert_eq!(of_linux("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), "dnf install postgresql-server");
        assert_eq!(of_linux("ID=alpine\n"), "apk add postgresql");
        assert_eq!(of_linux("ID=manjaro\nID_LIKE=arch\n"), "pacman -S postgresql");
        assert_eq!(of_linux("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n"), "zypper install postgresql-server");
        assert_eq!(of_linux(""), "apt-get install postgresql");
    }
}
